package undo

import (
	"errors"
	"strings"
	"testing"
)

func TestRunGoesBackwardsPastErrors(t *testing.T) {
	var s Stack
	var order []string
	add := func(name string, err error) {
		s.Push(name, func() error { order = append(order, name); return err })
	}
	add("a", nil)
	add("b", errors.New("boom"))
	add("c", nil)
	err := s.Run()
	if got := strings.Join(order, ""); got != "cba" {
		t.Errorf("order %q", got)
	}
	if err == nil || err.Error() != "b: boom" {
		t.Errorf("err = %v", err)
	}
	if s.Run() != nil || len(order) != 3 {
		t.Error("a second Run did something")
	}
}

func TestKeep(t *testing.T) {
	var s Stack
	s.Push("a", func() error { t.Error("ran"); return nil })
	s.Keep()
	if err := s.Run(); err != nil {
		t.Error(err)
	}
}
