/* Opens N connections, has one request served on each, then holds them idle and answers pings.
 *
 *   idle http|ws PORT PATH CONNECTIONS LIFETIME [RATE]
 *
 * A WebSocket gets the handshake and one echo. Prints one line of JSON when all are open; then one line per
 * "stat" read from stdin. Ends at the end of stdin, or after LIFETIME seconds. With RATE not more than so many are opened in a
 * second. Close frames are answered and counted. */
#include "ws_wire.h"

#define SOURCES 16
#define IN_FLIGHT 64
#define OPEN_SECONDS 60
#define TEXT "hello, idle connection"

enum state { CONNECTING, ANSWER, ECHO, IDLE, CLOSED };

struct peer {
    int fd;
    enum state state;
    size_t got;
    char in[2048];
};

static struct peer *peers;
static int is_ws, rate, port, count, next_peer, in_flight, idle_now, failed, closed, poll_fd;
static uint64_t began, pings, closes, bytes, random_state = 2463534242ull;
static const char *path;

static void start(struct peer *p) {
    p->fd = dial(port, (int)(p - peers) % SOURCES);
    if (p->fd < 0) {
        p->state = CLOSED;
        failed++;
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = p};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, p->fd, &event);
    p->state = CONNECTING;
    in_flight++;
}

static void fill(void) {
    uint64_t due = rate ? 1 + (now_ns() - began) * (uint64_t)rate / 1000000000ull : (uint64_t)count;
    while (in_flight < IN_FLIGHT && next_peer < count && (uint64_t)next_peer < due) start(&peers[next_peer++]);
}

static void lost(struct peer *p) {
    if (p->state == IDLE) {
        idle_now--;
        closed++;
    } else {
        in_flight--;
        failed++;
    }
    p->state = CLOSED;
    close(p->fd);
    fill();
}

static void became_idle(struct peer *p) {
    p->state = IDLE;
    in_flight--;
    idle_now++;
    fill();
}

static void put(struct peer *p, const void *data, int size) {
    if (send(p->fd, data, (size_t)size, MSG_NOSIGNAL) != size) lost(p);
}

static void put_frame(struct peer *p, int opcode, const void *data, size_t size) {
    uint8_t out[160];
    put(p, out, (int)ws_frame(out, opcode, data, size, &random_state));
}

static void connected(struct peer *p) {
    char text[512];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, p->fd, &event);
    p->state = ANSWER;
    put(p, text, is_ws ? ws_request(text, sizeof text, path, port) : http_request(text, sizeof text, path, port));
}

static void consume(struct peer *p, size_t size) {
    p->got -= size;
    memmove(p->in, p->in + size, p->got);
    p->in[p->got] = 0;
}

static size_t body_length(const char *head) {
    const char *field = strcasestr(head, "\r\ncontent-length:");
    return field ? (size_t)atoi(field + 17) : 0;
}

/* The answer to the request or to the handshake, once it is complete. */
static void answered(struct peer *p) {
    size_t head = head_length(p->in);
    if (!head) return;
    if (strncmp(p->in, is_ws ? "HTTP/1.1 101" : "HTTP/1.1 200", 12) != 0 || (is_ws && !strstr(p->in, WS_ACCEPT))) {
        lost(p);
        return;
    }
    size_t whole = head + (is_ws ? 0 : body_length(p->in));
    if (p->got < whole) return;
    consume(p, whole);
    if (is_ws) {
        p->state = ECHO;
        put_frame(p, OP_TEXT, TEXT, sizeof TEXT - 1);
    } else {
        became_idle(p);
    }
}

static void frames(struct peer *p) {
    size_t head, size;
    int opcode;
    while ((p->state == ECHO || p->state == IDLE) && ws_head((uint8_t *)p->in, p->got, &opcode, &head, &size)) {
        char data[126];
        if (size >= sizeof data) die("a frame of %zu bytes on an idle connection", size);
        memcpy(data, p->in + head, size);
        consume(p, head + size);
        if (opcode == OP_PING) {
            pings++;
            put_frame(p, OP_PONG, data, size);
        } else if (opcode == OP_TEXT && p->state == ECHO) {
            if (size != sizeof TEXT - 1 || memcmp(data, TEXT, size) != 0) die("the echo differs");
            became_idle(p);
        } else if (opcode == OP_CLOSE) {
            closes++;
            put_frame(p, OP_CLOSE, data, size);
            if (p->state != CLOSED) lost(p);
        } else if (opcode != OP_PONG) {
            lost(p);
        }
    }
}

static void readable(struct peer *p) {
    ssize_t n = recv(p->fd, p->in + p->got, sizeof p->in - 1 - p->got, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        lost(p);
        return;
    }
    bytes += (uint64_t)n;
    p->got += (size_t)n;
    p->in[p->got] = 0;
    if (p->state == ANSWER) answered(p);
    if (is_ws) frames(p);
    if (p->state != CLOSED && p->got == sizeof p->in - 1) die("an answer longer than %zu bytes", p->got);
}

static void report(void) {
    printf("{\"open\": %d, \"failed\": %d, \"closed\": %d, \"pings\": %llu, \"closes\": %llu, \"bytes\": %llu, \"cpu\": %.4f}\n", idle_now,
           failed, closed, (unsigned long long)pings, (unsigned long long)closes, (unsigned long long)bytes, cpu_seconds());
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 6 && argc != 7) die("usage: idle http|ws PORT PATH CONNECTIONS LIFETIME [RATE]");
    is_ws = strcmp(argv[1], "ws") == 0;
    port = atoi(argv[2]);
    path = argv[3];
    count = atoi(argv[4]);
    int lifetime = atoi(argv[5]), told = 0;
    rate = argc == 7 ? atoi(argv[6]) : 0;
    if (rate < 0 || count < 1 || count > 50000 || lifetime < 1 || lifetime > 1800) die("out of bounds");
    bound_life((unsigned)lifetime);
    peers = calloc((size_t)count, sizeof *peers);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    began = now_ns();
    fill();
    for (;;) {
        int n = epoll_wait(poll_fd, events, 256, rate ? 2 : 1000);
        fill();
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if (!p) {
                char line[64];
                if (read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
                report();
            } else if (p->state == CONNECTING) {
                if (events[i].events & (EPOLLERR | EPOLLHUP)) lost(p);
                else connected(p);
            } else if (p->state != CLOSED) {
                readable(p);
            }
        }
        if (!told && in_flight == 0 && next_peer == count) {
            told = 1;
            report();
        }
        if (!told && now_ns() - began > OPEN_SECONDS * 1000000000ull)
            die("%d of %d connections open after %d s", idle_now, count, OPEN_SECONDS);
    }
}
