package blocks

// Lose has the next pass look at everything, as after a watch that has lost
// something.
func (s *Source) Lose() { s.all = true }

// ShiftFor is shiftFor.
func ShiftFor(size int64) uint { return shiftFor(size) }
