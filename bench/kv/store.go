package kv

import "sync"

// store is the data: a map with a count of the bytes it holds.
type store struct {
	max  int64
	mu   sync.RWMutex
	data map[string][]byte
	used int64
}

// entryCost is charged for each entry beside its key and value.
const entryCost = 64

func cost(key, value []byte) int64 { return int64(len(key) + len(value) + entryCost) }

// get returns the value of key, nil if there is none. It must not be changed.
func (s *store) get(key []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.data[string(key)]
}

// set stores value, which the store owns from then on. False means that there
// is no room for it; nothing has changed then.
func (s *store) set(key, value []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := cost(key, value)
	if old, ok := s.data[string(key)]; ok {
		more -= cost(key, old)
	}
	if more > 0 && s.used+more > s.max {
		return false
	}
	s.data[string(key)] = value
	s.used += more
	return true
}

// del removes keys and returns how many were there.
func (s *store) del(keys [][]byte) (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if old, ok := s.data[string(key)]; ok {
			delete(s.data, string(key))
			s.used -= cost(key, old)
			n++
		}
	}
	return n
}

func (s *store) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.used = map[string][]byte{}, 0
}

func (s *store) size() (keys int, bytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.data), s.used
}
