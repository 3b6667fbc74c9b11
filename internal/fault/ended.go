package fault

import "context"

// Ended is the error of a ctx that has ended, with kind Interrupted; nil of
// another.
func Ended(ctx context.Context) error { return Wrap(Interrupted, context.Cause(ctx)) }
