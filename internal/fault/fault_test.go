package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestKindSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("migrate 101: %w", New(Locked, "container %d is locked", 101).WithHint("wait for it"))
	if KindOf(err) != Locked || HintOf(err) != "wait for it" {
		t.Errorf("kind %d, hint %q", KindOf(err), HintOf(err))
	}
	if got := KindOf(Wrap(Copy, err)); got != Locked {
		t.Errorf("Wrap replaced the kind: %d", got)
	}
	if got := KindOf(Wrap(Copy, errors.New("x"))); got != Copy {
		t.Errorf("Wrap gave kind %d", got)
	}
	if Wrap(Copy, nil) != nil {
		t.Error("Wrap made an error of nil")
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err            error
		vzctl, migrate int
	}{
		{nil, 0, 0},
		{errors.New("x"), 3, 3},
		{New(Locked, "x"), 9, 20},
		{New(NotRunning, "x"), 31, 2},
		{New(NoContainer, "x"), 14, 10},
		{New(Exists, "x"), 44, 9},
		{New(AddressUsed, "x"), 78, 12},
		{New(NoImages, "x"), 99, 16},
		{New(ImageResize, "x"), 154, 3},
		{New(Convert, "x"), 155, 3},
		{New(Compact, "x"), 166, 3},
		{New(Kind(60000), "from a newer peer"), 3, 3},
	} {
		if got := VzctlCode(c.err); got != c.vzctl {
			t.Errorf("VzctlCode(%v) = %d, want %d", c.err, got, c.vzctl)
		}
		if got := MigrateCode(c.err); got != c.migrate {
			t.Errorf("MigrateCode(%v) = %d, want %d", c.err, got, c.migrate)
		}
	}
}
