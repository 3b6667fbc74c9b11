package fault

// vzctlCodes are vzctl's exit codes as OpenVZ documents them.
var vzctlCodes = map[Kind]int{
	Other: 3, Usage: 20, BadValue: 21, NoContainer: 14, NotRunning: 31, Running: 32,
	Mounted: 41, NotMounted: 40, Locked: 9, Exists: 44, NoTemplate: 91, NoSpace: 46,
	Permission: 12, Command: 8, Cgroup: 6, Network: 34, Mount: 50, Unmount: 51,
	Config: 85, Disabled: 105, NoEngine: 5, AddressUsed: 78, Restore: 17,
	Checkpoint: 16, Interrupted: 130, Stop: 33, Undelivered: 9,
	NoImages: 99, ImageCreate: 151, ImageMount: 152, ImageUmount: 153, ImageResize: 154, Convert: 155, Compact: 166,
}

// migrateCodes are vzmigrate's: the legacy generation's table first, the
// seventh generation's where the legacy one has no number for the case.
var migrateCodes = map[Kind]int{
	Other: 3, Usage: 1, BadValue: 1, NotRunning: 2, Connect: 4, Copy: 6, Restore: 7,
	Checkpoint: 8, Stop: 8, Exists: 9, NoContainer: 10, Config: 10, AddressUsed: 12,
	NoEngine: 14, Locked: 20, Undelivered: 22, Interrupted: 25, Protocol: 26,
	NoTemplate: 27, NoSpace: 31, SameHost: 34, Permission: 3, TooSlow: 33,
	NoImages: 16,
}

// VzctlCode is the exit code of vzctl and vzlist for err; 0 for nil.
func VzctlCode(err error) int { return code(vzctlCodes, err) }

// MigrateCode is the exit code of vzmigrate for err; 0 for nil.
func MigrateCode(err error) int { return code(migrateCodes, err) }

func code(table map[Kind]int, err error) int {
	if err == nil {
		return 0
	}
	if c, ok := table[KindOf(err)]; ok {
		return c
	}
	return table[Other]
}
