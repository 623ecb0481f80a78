// Gin with gorilla/websocket: the same three routes as asgi.py. `gin PORT`
package main

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gorilla/websocket"
)

const (
	pingPeriod = 20 * time.Second // the chat example has 54 s; 20 s is what the other servers do
	pongWait   = 40 * time.Second
	writeWait  = 10 * time.Second
)

var upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}

// keepAlive is the ping ticker goroutine of the chat example.
func keepAlive(conn *websocket.Conn, done chan struct{}) {
	ticker := time.NewTicker(pingPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			if conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait)) != nil {
				return
			}
		}
	}
}

func echo(c *gin.Context) {
	conn, err := upgrader.Upgrade(c.Writer, c.Request, nil)
	if err != nil {
		return
	}
	done := make(chan struct{})
	defer close(done)
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(pongWait))
	conn.SetPongHandler(func(string) error { return conn.SetReadDeadline(time.Now().Add(pongWait)) })
	go keepAlive(conn, done)
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, data) != nil {
			return
		}
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		println(gin.Version)
		return
	}
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "Hello, World!") })
	router.POST("/post", func(c *gin.Context) {
		if _, err := io.ReadAll(c.Request.Body); err != nil {
			return
		}
		c.String(http.StatusOK, "ok")
	})
	router.GET("/gc", func(c *gin.Context) {
		runtime.GC()
		debug.FreeOSMemory()
		c.String(http.StatusOK, "ok")
	})
	router.GET("/ws", echo)
	if err := router.Run("127.0.0.1:" + os.Args[1]); err != nil {
		os.Exit(1)
	}
}
