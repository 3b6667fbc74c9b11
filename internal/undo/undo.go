// Package undo keeps the way back beside the way there: every step that
// changes a host pushes its reversal at once, and a failure runs them newest
// first.
//
//	var u undo.Stack
//	defer u.Run()
//	...
//	u.Push("remove cgroup", func() error { return cg.Remove() })
//	...
//	u.Keep() // all went well: nothing is undone
package undo

import (
	"errors"
	"fmt"
	"sync"
)

// Stack is a list of reversals. The zero value is ready to use, from several
// goroutines too.
type Stack struct {
	mu    sync.Mutex
	steps []step
}

type step struct {
	name string
	do   func() error
}

// Push registers the reversal of what was just done. The name appears in the
// error if the reversal fails.
func (s *Stack) Push(name string, do func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, step{name, do})
}

// Keep forgets all reversals.
func (s *Stack) Keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = nil
}

// Run reverses everything, newest first, and goes on past errors. It returns
// them joined. A second Run does nothing.
func (s *Stack) Run() error {
	s.mu.Lock()
	steps := s.steps
	s.steps = nil
	s.mu.Unlock()
	var errs []error
	for i := len(steps) - 1; i >= 0; i-- {
		if err := steps[i].do(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", steps[i].name, err))
		}
	}
	return errors.Join(errs...)
}
