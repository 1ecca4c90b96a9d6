package schema

import "strings"

// nearest returns the candidate that word was most likely meant to be, or "" when
// none is near enough to name. Case costs nothing.
func nearest(word string, candidates []string) string {
	lower := strings.ToLower(word)
	best, bestCost := "", len(word)/3+2
	for _, c := range candidates {
		cost := distance(lower, strings.ToLower(c))
		if cost < bestCost || (cost == bestCost && best != "" && c < best) {
			best, bestCost = c, cost
		}
	}
	return best
}

// distance is the number of letters to insert, drop, replace or swap with their
// neighbour to turn a into b.
func distance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	before, last, row := make([]int, len(rb)+1), make([]int, len(rb)+1), make([]int, len(rb)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(ra); i++ {
		row[0] = i
		for j := 1; j <= len(rb); j++ {
			replace := last[j-1]
			if ra[i-1] != rb[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && ra[i-1] == rb[j-2] && ra[i-2] == rb[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(rb)]
}
