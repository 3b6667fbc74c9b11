package cli

import "github.com/spf13/cobra"

// Commands are the programs' root commands, for their manual pages.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		new(vzctl).root(), new(vzlist).root(), new(vzmigrate).root(),
		new(vztmpl).root(), new(vzlab).root(), new(vzbench).root(),
	}
}
