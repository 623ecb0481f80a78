// 2,000 contexts with a deadline of 100 ms at once, over and over, beside work that fills one processor to four fifths.
package main

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"syscall"
	"time"
)

const (
	count   = 2000
	length  = 100 * time.Millisecond
	seconds = 3 * time.Second
	busy    = 0.8
	piece   = time.Millisecond
)

func used() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}

func work(until time.Time) {
	pause := 2 * time.Millisecond
	before, seen := used(), time.Now()
	for time.Now().Before(until) {
		began := time.Now()
		for time.Since(began) < piece {
		}
		time.Sleep(pause)
		if passed := time.Since(seen); passed > 50*time.Millisecond {
			share := (used() - before) / passed.Seconds()
			pause = time.Duration(float64(pause)*(1+share-busy) + (share-busy)*1e6)
			if pause < 0 {
				pause = 0
			}
			before, seen = used(), time.Now()
		}
	}
}

func main() {
	until := time.Now().Add(time.Second + seconds)
	warm := until.Add(-seconds)
	var lock sync.Mutex
	var late []float64
	var all sync.WaitGroup
	for number := 0; number < count; number++ {
		all.Add(1)
		go func(after time.Duration) {
			defer all.Done()
			time.Sleep(after)
			for began := time.Now(); began.Before(until); began = time.Now() {
				ctx, cancel := context.WithTimeout(context.Background(), length)
				<-ctx.Done()
				found := time.Since(began) - length
				cancel()
				if began.After(warm) {
					lock.Lock()
					late = append(late, found.Seconds()*1000)
					lock.Unlock()
				}
			}
		}(length * time.Duration(number) / count)
	}
	done := make(chan bool)
	go func() { work(until); done <- true }()
	time.Sleep(time.Second)
	before, began := used(), time.Now()
	<-done
	share := (used() - before) / time.Since(began).Seconds()
	all.Wait()
	sort.Float64s(late)
	fmt.Printf("{\"p50_ms\": %f, \"p99_ms\": %f, \"max_ms\": %f, \"busy\": %f, \"count\": %d}\n",
		late[len(late)/2], late[len(late)*99/100], late[len(late)-1], share, len(late))
}
