// Package load fills a Redis-compatible server with keys whose content is a
// function of a seed, and can tell later whether they are all still right.
package load

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/vzkit/vzkit/bench/resp"
	"github.com/vzkit/vzkit/internal/fault"
)

// MaxKeys is the largest number of keys: their names have eight digits.
const MaxKeys = 100_000_000

// patience is how long a server may take to answer a batch of commands.
const patience = 30 * time.Second

// Config says what is loaded: key:00000000 up to Keys-1.
type Config struct {
	Keys uint64
	Size int    // bytes of each value, 1 to resp.MaxBulk
	Seed uint64 // of the values
}

// Validate refuses what cannot be loaded, with a hint.
func (c Config) Validate() error {
	if c.Keys < 1 || c.Keys > MaxKeys {
		return fault.New(fault.BadValue, "number of keys %d out of range", c.Keys).
			WithHint("Give a number from 1 to %d.", MaxKeys)
	}
	if c.Size < 1 || c.Size > resp.MaxBulk {
		return fault.New(fault.BadValue, "value size %d out of range", c.Size).
			WithHint("Give a number of bytes from 1 to %d.", resp.MaxBulk)
	}
	return nil
}

// Fill sets the keys through conn, many at a time, and compares DBSIZE before
// and after. It returns the time that setting them took.
func Fill(ctx context.Context, conn net.Conn, c Config) (time.Duration, error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	client := resp.NewClient(conn)
	before, err := client.Do("DBSIZE")
	if err != nil {
		return 0, fmt.Errorf("read database size: %w", err)
	}
	var value []byte
	set := func(b []byte, i uint64) []byte {
		value = c.appendValue(value[:0], i)
		return resp.AppendCommand(b, []byte("SET"), appendKey(nil, i), value)
	}
	start := time.Now()
	err = client.Pipeline(ctx, c.Keys, patience, set, func(i uint64, r resp.Reply) error { return r.Err() })
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("set keys: %w", err)
	}
	return took, c.checkSize(client, uint64(before.Int))
}

// checkSize compares DBSIZE with what Fill must have made of before: keys of
// an earlier fill are overwritten, strangers stay.
func (c Config) checkSize(client *resp.Client, before uint64) error {
	after, err := client.Do("DBSIZE")
	if err != nil {
		return fmt.Errorf("read database size: %w", err)
	}
	if n := uint64(after.Int); n < max(c.Keys, before) || n > before+c.Keys {
		return fmt.Errorf("database has %d keys, had %d before %d were set", n, before, c.Keys)
	}
	return nil
}

// Damage is what Check found.
type Damage struct{ Missing, Wrong uint64 }

// Check reads all keys back through conn and compares them with what Fill set.
func Check(ctx context.Context, conn net.Conn, c Config) (Damage, error) {
	var d Damage
	if err := c.Validate(); err != nil {
		return d, err
	}
	get := func(b []byte, i uint64) []byte {
		return resp.AppendCommand(b, []byte("GET"), appendKey(nil, i))
	}
	var want []byte
	err := resp.NewClient(conn).Pipeline(ctx, c.Keys, patience, get, func(i uint64, r resp.Reply) error {
		want = c.appendValue(want[:0], i)
		switch {
		case r.Null:
			d.Missing++
		case !bytes.Equal(r.Text, want):
			d.Wrong++
		}
		return r.Err()
	})
	if err != nil {
		return d, fmt.Errorf("read keys: %w", err)
	}
	return d, nil
}

func appendKey(b []byte, i uint64) []byte { return fmt.Appendf(b, "key:%08d", i) }

const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"

// appendValue appends the value of key i: Size letters out of a generator
// seeded with (Seed, i).
func (c Config) appendValue(b []byte, i uint64) []byte {
	gen := rand.NewPCG(c.Seed, i)
	for n := 0; n < c.Size; {
		for bits := gen.Uint64(); n < c.Size && bits > 0; n++ {
			b = append(b, letters[bits%64])
			bits /= 64
		}
	}
	return b
}
