/* WebSocket echo load: N connections, one message in flight on each, every echoed byte compared.
 *
 *   ws_load PORT PATH CONNECTIONS BYTES SECONDS WARMUP
 *
 * One line of JSON on stdout: messages per second, latency percentiles in microseconds, own core use. */
#include "ws_wire.h"

#define BUCKETS 4096 /* 64 octaves of 64 steps: at most 1.6 % off */

struct peer {
    int fd;
    size_t got;
    uint64_t sent_at, sequence;
    uint8_t *expected, *in, *out;
};

static uint64_t histogram[BUCKETS], messages, pings, slowest;
static uint64_t random_state = 88172645463325252ull;
static size_t payload_size, room;

static unsigned bucket_of(uint64_t ns) {
    if (ns < 64) return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    return (octave - 5) * 64 + (unsigned)((ns >> (octave - 6)) & 63);
}

static double bucket_value(unsigned bucket) {
    if (bucket < 64) return bucket;
    unsigned octave = bucket / 64 + 5;
    return (double)((64ull + bucket % 64) << (octave - 6));
}

static double percentile(double share) {
    uint64_t wanted = (uint64_t)((double)messages * share), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > wanted) return bucket_value(i) / 1000.0;
    }
    return (double)slowest / 1000.0;
}

static void send_all(int fd, const uint8_t *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR) continue; /* one small frame in flight: the buffer has room */
            die("send: %s", strerror(errno));
        }
        data += n;
        size -= (size_t)n;
    }
}

static void send_next(struct peer *p) {
    uint64_t n = ++p->sequence;
    for (size_t i = payload_size < 12 ? payload_size : 12; i-- > 0; n /= 10) p->expected[i] = (uint8_t)('0' + n % 10);
    size_t size = ws_frame(p->out, OP_TEXT, p->expected, payload_size, &random_state);
    p->sent_at = now_ns();
    send_all(p->fd, p->out, size);
}

static void handshake(struct peer *p, const char *path, int port) {
    char text[4096];
    fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) & ~O_NONBLOCK);
    struct timeval wait = {.tv_sec = 5};
    setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    int size = ws_request(text, sizeof text, path, port);
    send_all(p->fd, (uint8_t *)text, (size_t)size);
    size_t got = 0;
    do {
        ssize_t n = recv(p->fd, text + got, 1, 0); /* byte by byte: nothing of the first frame may be taken */
        if (n <= 0) die("no answer to the handshake");
        text[++got] = 0;
        if (got + 1 == sizeof text) die("the handshake answer is too long");
    } while (got < 4 || memcmp(text + got - 4, "\r\n\r\n", 4) != 0);
    if (strncmp(text, "HTTP/1.1 101", 12) != 0 || !strstr(text, WS_ACCEPT)) die("handshake refused: %.60s", text);
    fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
}

/* Takes what has arrived; every whole frame is checked and answered. */
static void readable(struct peer *p, int counting) {
    ssize_t n = recv(p->fd, p->in + p->got, room - p->got, 0);
    if (n == 0) die("the server closed a connection");
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        die("recv: %s", strerror(errno));
    }
    p->got += (size_t)n;
    size_t head, size;
    int opcode;
    while (ws_head(p->in, p->got, &opcode, &head, &size)) {
        if (opcode == OP_PING) {
            uint8_t pong[140];
            pings++;
            send_all(p->fd, pong, ws_frame(pong, OP_PONG, p->in + head, size, &random_state));
        } else if (opcode == OP_TEXT) {
            if (size != payload_size || memcmp(p->in + head, p->expected, size) != 0) die("the echo differs");
            if (counting) {
                uint64_t took = now_ns() - p->sent_at;
                histogram[bucket_of(took)]++;
                messages++;
                if (took > slowest) slowest = took;
            }
            send_next(p);
        } else {
            die("an unexpected frame, opcode %d", opcode);
        }
        p->got -= head + size;
        memmove(p->in, p->in + head + size, p->got);
    }
    if (p->got == room) die("a frame longer than the message sent");
}

int main(int argc, char **argv) {
    if (argc != 7) die("usage: ws_load PORT PATH CONNECTIONS BYTES SECONDS WARMUP");
    int port = atoi(argv[1]), count = atoi(argv[3]);
    payload_size = (size_t)atoi(argv[4]);
    double seconds = atof(argv[5]), warmup = atof(argv[6]);
    if (count < 1 || count > 10000 || payload_size < 1 || payload_size > 65000 || seconds > 600) die("out of bounds");
    bound_life((unsigned)(seconds + warmup) + 20);
    room = payload_size + 512;
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct peer *peers = calloc((size_t)count, sizeof *peers);
    for (int i = 0; i < count; i++) {
        struct peer *p = &peers[i];
        p->fd = dial(port, i % 16);
        if (p->fd < 0) die("connect: %s", strerror(errno));
        p->expected = malloc(payload_size);
        p->in = malloc(room);
        p->out = malloc(payload_size + 16);
        for (size_t j = 0; j < payload_size; j++) p->expected[j] = (uint8_t)('a' + (j + (size_t)i) % 26);
        handshake(p, argv[2], port);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
        epoll_ctl(poll, EPOLL_CTL_ADD, p->fd, &event);
    }
    for (int i = 0; i < count; i++) send_next(&peers[i]);
    uint64_t begin = now_ns() + (uint64_t)(warmup * 1e9), end = begin + (uint64_t)(seconds * 1e9), now, started = 0;
    double cpu = 0;
    struct epoll_event events[256];
    while ((now = now_ns()) < end) {
        if (!started && now >= begin) {
            started = now;
            cpu = cpu_seconds();
        }
        int n = epoll_wait(poll, events, 256, 100);
        for (int i = 0; i < n; i++) readable(events[i].data.ptr, started != 0);
    }
    double took = (double)(now - started) / 1e9, core = (cpu_seconds() - cpu) / took;
    for (int i = 0; i < count; i++) {
        uint8_t bye[16];
        send_all(peers[i].fd, bye, ws_frame(bye, OP_CLOSE, (const uint8_t *)"\x03\xe8", 2, &random_state));
    }
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"p50_us\": %.1f, \"p90_us\": %.1f, "
           "\"p99_us\": %.1f, \"max_us\": %.1f, \"client_core\": %.4f, \"pings\": %llu}\n",
           (unsigned long long)messages, took, (double)messages / took, percentile(0.5), percentile(0.9),
           percentile(0.99), (double)slowest / 1000.0, core, (unsigned long long)pings);
    return 0;
}
