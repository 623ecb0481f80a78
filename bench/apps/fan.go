// gorilla/websocket: one prepared message to all members. `fan hub|loop PORT`
//
// hub is the chat example: a goroutine that owns the members, a channel of 256 and a writing goroutine for each, with its
// ping. loop writes from the goroutine of the call, one member after the other: the tightest form that gorilla has.
package main

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	size       = 200
	pingPeriod = 20 * time.Second // the chat example has 54 s; 20 s is what the other servers do
	pongWait   = 40 * time.Second
	writeWait  = 10 * time.Second
)

var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}

type client struct {
	conn *websocket.Conn
	send chan *websocket.PreparedMessage
}

type hub struct {
	clients              map[*client]bool
	broadcast            chan *websocket.PreparedMessage
	register, unregister chan *client
}

func (h *hub) run() {
	for {
		select {
		case c := <-h.register:
			h.clients[c] = true
		case c := <-h.unregister:
			if h.clients[c] {
				delete(h.clients, c)
				close(c.send)
			}
		case message := <-h.broadcast:
			for c := range h.clients {
				select {
				case c.send <- message:
				default:
					close(c.send)
					delete(h.clients, c)
				}
			}
		}
	}
}

func (c *client) read(gone func()) {
	defer c.conn.Close()
	defer gone()
	c.conn.SetReadLimit(512)
	c.conn.SetReadDeadline(time.Now().Add(pongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		if _, _, err := c.conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (c *client) write() {
	ticker := time.NewTicker(pingPeriod)
	defer ticker.Stop()
	defer c.conn.Close()
	for {
		select {
		case message, ok := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !ok {
				c.conn.WriteMessage(websocket.CloseMessage, []byte{})
				return
			}
			if c.conn.WritePreparedMessage(message) != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

// loop has no channels and no goroutines for writing; pings go out from the reading one's deadline only.
type loop struct {
	mutex   sync.Mutex
	clients map[*client]bool
}

func (l *loop) publish(message *websocket.PreparedMessage) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for c := range l.clients {
		if c.conn.WritePreparedMessage(message) != nil {
			delete(l.clients, c)
		}
	}
}

func prepared(number int) *websocket.PreparedMessage {
	text := fmt.Sprintf("%012d", number)
	text += strings.Repeat("x", size-len(text))
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte(text))
	if err != nil {
		panic(err)
	}
	return message
}

func main() {
	runtime.GOMAXPROCS(1)
	form, port := os.Args[1], os.Args[2]
	h := &hub{make(map[*client]bool), make(chan *websocket.PreparedMessage), make(chan *client), make(chan *client)}
	l := &loop{clients: make(map[*client]bool)}
	publish := l.publish
	if form == "hub" {
		go h.run()
		publish = func(message *websocket.PreparedMessage) { h.broadcast <- message }
	}
	ok := func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok")) }
	http.HandleFunc("/", ok)
	http.HandleFunc("/gc", func(w http.ResponseWriter, r *http.Request) {
		runtime.GC()
		debug.FreeOSMemory()
		ok(w, r)
	})
	http.HandleFunc("/go", func(w http.ResponseWriter, r *http.Request) {
		first, _ := strconv.Atoi(r.URL.Query().Get("seq"))
		count, _ := strconv.Atoi(r.URL.Query().Get("n"))
		for number := first; number < first+count; number++ {
			publish(prepared(number))
		}
		ok(w, r)
	})
	http.HandleFunc("/fan", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{conn: conn}
		if form == "hub" {
			c.send = make(chan *websocket.PreparedMessage, 256)
			h.register <- c
			go c.write()
			go c.read(func() { h.unregister <- c })
			return
		}
		conn.SetReadDeadline(time.Time{})
		l.mutex.Lock()
		l.clients[c] = true
		l.mutex.Unlock()
		go func() { // who reads notices the end; nothing pings here
			conn.ReadMessage()
			l.mutex.Lock()
			delete(l.clients, c)
			l.mutex.Unlock()
			conn.Close()
		}()
	})
	if err := http.ListenAndServe("127.0.0.1:"+port, nil); err != nil {
		os.Exit(1)
	}
}
