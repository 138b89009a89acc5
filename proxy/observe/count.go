package observe

import "fmt"

// Count writes a number with what is counted: "1 file", "2 files", "0 files".
func Count[N ~int | ~int64 | ~uint | ~uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
