package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// Handover is the durable record, on the host a container leaves, that
// another host owns it now. It is the instant at which ownership changes
// hands: a host that has it never runs the container again. It goes when the
// new owner has confirmed that the container runs there.
type Handover struct {
	ID   string    `json:"id"`   // of the migration
	To   string    `json:"to"`   // the other host, as the command named it
	Live bool      `json:"live"` // the frozen processes are still here
	At   time.Time `json:"at"`
}

func (c *Container) handoverPath() string {
	return filepath.Join(c.host.Lib, "handover", c.id()+".json")
}

// Handover returns the container's record, or nil if this host owns it.
func (c *Container) Handover() (*Handover, error) {
	text, err := os.ReadFile(c.handoverPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var h Handover
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return nil, fmt.Errorf("read handover record: %w", err)
	}
	return &h, nil
}

// HandOver writes the record. When it returns, the record is on the disk.
func (c *Container) HandOver(h Handover) error {
	if err := os.MkdirAll(filepath.Dir(c.handoverPath()), 0o755); err != nil {
		return fmt.Errorf("make handover directory: %w", err)
	}
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode handover record: %w", err)
	}
	if err := writeDurably(c.handoverPath(), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write handover record: %w", err)
	}
	return nil
}

// Delivered removes the record: the new owner has confirmed.
func (c *Container) Delivered() error {
	if err := os.Remove(c.handoverPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove handover record: %w", err)
	}
	return nil
}

// CheckOwned refuses to act on a container that has been handed away.
func (c *Container) CheckOwned() error {
	h, err := c.Handover()
	if err != nil || h == nil {
		return err
	}
	return fault.New(fault.Undelivered, "container %d is handed to %s since %s", c.ID, h.To, h.At.Format(time.DateTime)).
		WithHint("vzmigrate %s %d delivers the handover.", h.To, c.ID)
}

// writeDurably puts text at path in one step and onto the disk: file, name and
// directory entry.
func writeDurably(path string, text []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir puts the names in a directory onto the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
