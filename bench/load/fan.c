/* Members of a channel: opens N WebSockets, has the server publish to all of them, and checks what each gets.
 *
 *   fan PORT[,PORT] PATH MEMBERS LIFETIME
 *
 * Members are spread over the ports. Prints one line of JSON when all are open, then one for each line read from stdin:
 *
 *   call CALLS MESSAGES GAP_US   so often: GET /go?n=MESSAGES&seq=FIRST of the first port, one call after the other, not
 *                                sooner than GAP_US after the one before; until every member has every message
 *   stall K                      the first K members read nothing from now on
 *   unstall                      they read again; what was dropped meanwhile is no error
 *   stat                         the counts
 *
 * Each message is text of SIZE bytes that begins with its number in twelve digits: one that is lost, doubled or out of
 * order ends the run. While a call is on its way the reader does not sleep, so that no server pays for waking it. */
#include "ws_wire.h"

#define SOURCES 16
#define IN_FLIGHT 64
#define OPEN_SECONDS 60
#define CALL_SECONDS 20
#define SIZE 200
#define DIGITS 12
#define LEFT 512 /* of one frame that has not come whole */
#define MOST 200000
#define ROOM 65536 /* twice that: what a socket begins with. Else the kernel takes up to 32 MB for one that stalls */
#define QUIET_NS 400000000ull

enum state { CONNECTING, ANSWER, MEMBER, CLOSED };

struct peer {
    int fd, port;
    enum state state;
    int lenient, stalled;
    uint64_t next; /* number of the message that must come */
    size_t got;
    uint8_t left[LEFT];
};

static struct peer *peers;
static int ports[8], port_count, count, next_peer, in_flight, members, failed, closed, stalled, poll_fd, control = -1;
static const char *path;
static uint64_t began, frames, missed, pings, closes, sequence = 1, awaited, done, sent_at, random_state = 2463534242ull;
static uint8_t buffer[1 << 18];
static uint32_t *delays; /* microseconds from the call to each message, of this command */
static size_t delay_count;

static void start(struct peer *p) {
    p->port = ports[(p - peers) % port_count];
    p->fd = dial(p->port, (int)(p - peers) % SOURCES);
    p->next = 1;
    if (p->fd < 0) {
        p->state = CLOSED;
        failed++;
        return;
    }
    int room = ROOM;
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = p};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, p->fd, &event);
    p->state = CONNECTING;
    in_flight++;
}

static void fill(void) {
    while (in_flight < IN_FLIGHT && next_peer < count) start(&peers[next_peer++]);
}

static void lost(struct peer *p) {
    if (p->state == MEMBER) {
        members--;
        closed++;
        if (p->stalled) stalled--;
    } else {
        in_flight--;
        failed++;
    }
    p->state = CLOSED;
    close(p->fd);
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
    put(p, text, ws_request(text, sizeof text, path, p->port));
}

static void message(struct peer *p, const uint8_t *data, size_t size) {
    if (size && data[0] == '{') return; /* a position or a gap, of a hub that tells them */
    if (size != SIZE) die("a message of %zu bytes", size);
    uint64_t number = 0;
    for (int i = 0; i < DIGITS; i++) number = number * 10 + (uint64_t)(data[i] - '0');
    if (p->lenient ? number < p->next : number != p->next)
        die("member %d got message %llu, not %llu", (int)(p - peers), (unsigned long long)number,
            (unsigned long long)p->next);
    if (p->lenient) missed += number - p->next;
    p->next = number + 1;
    frames++;
    if (p->lenient) return;
    if (delay_count < MOST) delays[delay_count++] = (uint32_t)((now_ns() - sent_at) / 1000);
    if (number == awaited) done++;
}

/* Takes whole frames from `in`; returns how many bytes are not one yet. */
static size_t take(struct peer *p, const uint8_t *in, size_t got) {
    size_t at = 0, head, size;
    int opcode;
    while (p->state == MEMBER && ws_head(in + at, got - at, &opcode, &head, &size)) {
        const uint8_t *data = in + at + head;
        at += head + size;
        if (opcode == OP_TEXT) {
            message(p, data, size);
        } else if (opcode == OP_PING && size < 126) {
            pings++;
            put_frame(p, OP_PONG, data, size);
        } else if (opcode == OP_CLOSE && size < 126) {
            closes++;
            put_frame(p, OP_CLOSE, data, size);
            if (p->state != CLOSED) lost(p);
        } else if (opcode != OP_PONG) {
            die("an unexpected frame, opcode %d", opcode);
        }
    }
    return got - at;
}

static void readable(struct peer *p) {
    memcpy(buffer, p->left, p->got);
    ssize_t n = recv(p->fd, buffer + p->got, sizeof buffer - p->got - 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        lost(p);
        return;
    }
    size_t got = p->got + (size_t)n, at = 0;
    if (p->state == ANSWER) {
        buffer[got] = 0;
        at = head_length((char *)buffer);
        if (at) {
            if (strncmp((char *)buffer, "HTTP/1.1 101", 12) != 0 || !strstr((char *)buffer, WS_ACCEPT)) {
                lost(p);
                return;
            }
            p->state = MEMBER;
            in_flight--;
            members++;
            fill();
        }
    }
    size_t rest = p->state == MEMBER ? take(p, buffer + at, got - at) : got - at;
    if (p->state == CLOSED) return;
    if (rest > LEFT) die("an answer longer than %d bytes", LEFT);
    p->got = rest;
    memmove(p->left, buffer + got - rest, rest);
}

/* The connection for calls. On loopback it stands when connect(2) returns. */
static void open_control(void) {
    control = dial(ports[0], SOURCES);
    if (control < 0) die("control: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &control};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, control, &event);
}

static int call_answered;

static void answer(void) {
    static char text[1024];
    static size_t got;
    ssize_t n = recv(control, text + got, sizeof text - 1 - got, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) die("the server closed the connection for calls");
    text[got += (size_t)n] = 0;
    size_t head = head_length(text);
    if (!head || got < head + 2) return; /* the body is "ok" */
    if (strncmp(text, "HTTP/1.1 200", 12) != 0) die("call refused: %.60s", text);
    if (strcasestr(text, "\r\nconnection: close")) {
        close(control);
        control = -1;
    }
    got = 0;
    call_answered = 1;
}

static void turn(int wait) {
    static struct epoll_event events[512];
    int n = epoll_wait(poll_fd, events, 512, wait);
    for (int i = 0; i < n; i++) {
        struct peer *p = events[i].data.ptr;
        if (p == (void *)&control) {
            if (control >= 0) answer();
        } else if (p->state == CONNECTING) {
            if (events[i].events & (EPOLLERR | EPOLLHUP)) lost(p);
            else connected(p);
        } else if (p->state != CLOSED) {
            readable(p);
        }
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double quantile(double share) {
    return delay_count ? delays[(size_t)((double)(delay_count - 1) * share)] : 0;
}

static void report(int calls, double wall, double idle) {
    qsort(delays, delay_count, sizeof *delays, by_value);
    printf("{\"open\": %d, \"failed\": %d, \"closed\": %d, \"stalled\": %d, \"frames\": %llu, \"missed\": %llu, \"pings\": %llu, "
           "\"closes\": %llu, \"calls\": %d, \"wall\": %.6f, \"idle\": %.6f, \"p50_us\": %.0f, \"p99_us\": %.0f, "
           "\"max_us\": %.0f, \"cpu\": %.4f}\n",
           members, failed, closed, stalled, (unsigned long long)frames, (unsigned long long)missed, (unsigned long long)pings,
           (unsigned long long)closes, calls, wall, idle, quantile(0.5), quantile(0.99), quantile(1.0), cpu_seconds());
    fflush(stdout);
}

/* One call after the other. `wall` is the time in which one was on its way, `idle` what lay between them. */
static void call(int calls, int messages, uint64_t gap) {
    double wall = 0;
    uint64_t first = now_ns(), due = first;
    delay_count = 0;
    for (int i = 0; i < calls; i++) {
        char text[256];
        while (now_ns() < due) turn(0);
        done = 0;
        call_answered = 0;
        if (control < 0) open_control();
        awaited = sequence + (uint64_t)messages - 1;
        int size = snprintf(text, sizeof text, "GET /go?n=%d&seq=%llu HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", messages,
                            (unsigned long long)sequence, ports[0]);
        sequence += (uint64_t)messages;
        sent_at = now_ns();
        due = sent_at + gap;
        if (send(control, text, (size_t)size, MSG_NOSIGNAL) != size) die("call: %s", strerror(errno));
        while (!call_answered || done < (uint64_t)(members - stalled)) {
            turn(0);
            if (now_ns() - sent_at > CALL_SECONDS * 1000000000ull)
                die("call %d: %llu of %d members got the last message, answered %d", i, (unsigned long long)done,
                    members - stalled, call_answered);
        }
        wall += (double)(now_ns() - sent_at) / 1e9;
    }
    report(calls, wall, (double)(now_ns() - first) / 1e9 - wall);
}

static void stall(int how_many) {
    for (int i = 0; i < how_many && i < count; i++) {
        struct peer *p = &peers[i];
        if (p->state != MEMBER || p->stalled) continue;
        epoll_ctl(poll_fd, EPOLL_CTL_DEL, p->fd, NULL);
        p->stalled = p->lenient = 1;
        stalled++;
    }
    report(0, 0, 0);
}

static void unstall(void) {
    for (int i = 0; i < count; i++) {
        struct peer *p = &peers[i];
        if (p->state != MEMBER || !p->stalled) continue;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, p->fd, &event);
        p->stalled = 0;
        stalled--;
    }
    /* What waits in both kernels and in the server: until nothing has come for a while. */
    uint64_t first = now_ns(), last = first, seen = frames;
    while (now_ns() - last < QUIET_NS && now_ns() - first < CALL_SECONDS * 1000000000ull) {
        turn(1);
        if (frames != seen) last = now_ns();
        seen = frames;
    }
    for (int i = 0; i < count; i++) { /* whoever was lenient has missed something; from the next message on it counts */
        struct peer *p = &peers[i];
        if (p->state == MEMBER && p->lenient) {
            p->lenient = 0;
            missed += sequence - p->next;
            p->next = sequence;
        }
    }
    report(0, 0, 0);
}

static void command(char *line) {
    int calls, messages, how_many;
    unsigned long long gap;
    if (sscanf(line, "call %d %d %llu", &calls, &messages, &gap) == 3) call(calls, messages, gap * 1000);
    else if (sscanf(line, "stall %d", &how_many) == 1) stall(how_many);
    else if (strncmp(line, "unstall", 7) == 0) unstall();
    else if (strncmp(line, "stat", 4) == 0) report(0, 0, 0);
    else die("an unknown command: %s", line);
}

int main(int argc, char **argv) {
    if (argc != 5) die("usage: fan PORT[,PORT] PATH MEMBERS LIFETIME");
    for (char *word = strtok(argv[1], ","); word && port_count < 8; word = strtok(NULL, ",")) ports[port_count++] = atoi(word);
    path = argv[2];
    count = atoi(argv[3]);
    int lifetime = atoi(argv[4]);
    if (port_count < 1 || count < 1 || count > 19000 || lifetime < 1 || lifetime > 1800) die("out of bounds");
    bound_life((unsigned)lifetime);
    peers = calloc((size_t)count, sizeof *peers);
    delays = calloc(MOST, sizeof *delays);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    began = now_ns();
    fill();
    while (in_flight || next_peer < count) {
        turn(1000);
        if (now_ns() - began > OPEN_SECONDS * 1000000000ull)
            die("%d of %d members after %d s, %d failed", members, count, OPEN_SECONDS, failed);
    }
    report(0, 0, 0);
    /* Commands are not on the poll set: between them only pings come. */
    int input = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event in = {.events = EPOLLIN, .data.ptr = NULL}, event;
    epoll_ctl(input, EPOLL_CTL_ADD, STDIN_FILENO, &in);
    in.data.ptr = &poll_fd;
    epoll_ctl(input, EPOLL_CTL_ADD, poll_fd, &in);
    for (char line[64];;) {
        if (epoll_wait(input, &event, 1, 1000) < 1) continue;
        if (event.data.ptr == &poll_fd) {
            turn(0);
        } else {
            ssize_t n = read(STDIN_FILENO, line, sizeof line - 1); /* one line at a time: each is answered before the next */
            if (n <= 0) return 0;
            line[n] = 0;
            command(line);
        }
    }
}
