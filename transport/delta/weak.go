package delta

// window is the number of bytes in a weak sum.
const window = 256

const factor = 5

// entering is what a byte adds to a rolling sum, leaving what is taken off when
// it drops out of the window.
var entering, leaving = weakTables()

func weakTables() (in, out [256]uint64) {
	var state uint64
	power := uint64(1)
	for range window {
		power *= factor
	}
	for i := range in {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		in[i] = z ^ z>>31
		out[i] = in[i] * power
	}
	return in, out
}

// rolling sums the first window bytes of b.
func rolling(b []byte) (sum uint64) {
	for _, c := range b[:window] {
		sum = sum*factor + entering[c]
	}
	return sum
}

func weak(rolling uint64) uint32 { return uint32(rolling >> 32) }
