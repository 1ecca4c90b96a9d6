package datadir

import (
	"hash/maphash"
	"math/bits"
)

const (
	shardBits = 8
	// fullness is the part of a shard's slots, in tenths, at which it grows by half.
	fullness   = 8
	firstSlots = 16
)

// keySet remembers which keys were seen, in 12 bytes a key whatever its length:
// 96 bits of two hashes with random seeds, so that among 10 million keys two are
// taken for one with a probability below 1e-15. It is cut in shards so that
// growing copies only a 256th of it at a time: 10 million keys take about 200 MB.
type keySet struct {
	one, two maphash.Seed
	shards   [1 << shardBits]shard
}

// slot is the hash of a key; empty where its high part is 0.
type slot struct{ high, mid, low uint32 }

// shard is an open table.
type shard struct {
	slots []slot
	used  int
}

func newKeySet() *keySet { return &keySet{one: maphash.MakeSeed(), two: maphash.MakeSeed()} }

// add puts a key in and reports whether it was new.
func (s *keySet) add(key []byte) bool {
	first, second := maphash.Bytes(s.one, key), maphash.Bytes(s.two, key)
	hash := slot{max(1, uint32(first>>32)), uint32(first), uint32(second)} //nolint:gosec // halves
	sh := &s.shards[hash.mid&(1<<shardBits-1)]
	if sh.used*10 >= len(sh.slots)*fullness {
		sh.grow()
	}
	i, found := sh.find(hash)
	if !found {
		sh.slots[i] = hash
		sh.used++
	}
	return !found
}

// find returns the index of a hash, or that of the empty slot where it belongs.
func (s *shard) find(hash slot) (int, bool) {
	at, _ := bits.Mul64(uint64(hash.high)<<32|uint64(hash.mid), uint64(len(s.slots)))
	for i := int(at); ; i++ { //nolint:gosec // below the number of slots
		if i == len(s.slots) {
			i = 0
		}
		switch s.slots[i] {
		case hash:
			return i, true
		case slot{}:
			return i, false
		}
	}
}

func (s *shard) grow() {
	old := s.slots
	s.slots = make([]slot, max(firstSlots, len(old)*3/2))
	for _, hash := range old {
		if hash.high != 0 {
			at, _ := s.find(hash)
			s.slots[at] = hash
		}
	}
}
