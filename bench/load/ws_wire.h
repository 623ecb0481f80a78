/* What both load clients share: loopback sockets, the WebSocket handshake, masked frames, clocks. */
#ifndef BENCH_WS_WIRE_H
#define BENCH_WS_WIRE_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* The example key of RFC 6455 section 1.3 and the answer it must get. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

static inline void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(3);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* xorshift64*: a fresh mask per frame without a system call. */
static inline uint32_t next_mask(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (uint32_t)((x * 2685821657736338717ull) >> 32);
}

/* Dies with the harness, and at the latest after `seconds`. */
static inline void bound_life(unsigned seconds) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    alarm(seconds);
}

/* A non-blocking connect from 127.0.1.(1 + source) to 127.0.0.1:port. */
static inline int dial(int port, int source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    from.sin_addr.s_addr = htonl(0x7f000101u + (uint32_t)source);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline int http_request(char *out, size_t room, const char *path, int port) {
    return snprintf(out, room, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", path, port);
}

static inline int ws_request(char *out, size_t room, const char *path, int port) {
    return snprintf(out, room,
                    "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                    path, port);
}

/* Writes one masked frame (RFC 6455 section 5.2) for payloads below 64 KiB; returns its length. */
static inline size_t ws_frame(uint8_t *out, int opcode, const uint8_t *payload, size_t size, uint64_t *random) {
    size_t at = 0;
    out[at++] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        out[at++] = (uint8_t)(0x80 | size);
    } else {
        out[at++] = 0x80 | 126;
        out[at++] = (uint8_t)(size >> 8);
        out[at++] = (uint8_t)size;
    }
    uint32_t mask = next_mask(random);
    memcpy(out + at, &mask, 4);
    at += 4;
    uint64_t wide = (uint64_t)mask << 32 | mask;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t block;
        memcpy(&block, payload + i, 8);
        block ^= wide;
        memcpy(out + at + i, &block, 8);
    }
    for (; i < size; i++) out[at + i] = payload[i] ^ (uint8_t)(mask >> (8 * (i & 3)));
    return at + size;
}

/* Reads the head of one server frame: 1 when it is complete in `got` bytes, 0 when more is needed. */
static inline int ws_head(const uint8_t *in, size_t got, int *opcode, size_t *head, size_t *size) {
    if (got < 2) return 0;
    if (in[1] & 0x80) die("a server frame is masked");
    if ((in[0] & 0xf0) != 0x80) die("an unexpected fragment or extension bit: 0x%02x", in[0]);
    *opcode = in[0] & 0x0f;
    *head = 2;
    *size = in[1];
    if (*size == 127) die("a server frame above 64 KiB");
    if (*size == 126) {
        if (got < 4) return 0;
        *size = (size_t)in[2] << 8 | in[3];
        *head = 4;
    }
    return got >= *head + *size;
}

/* Length of a complete response head, 0 when it is not complete yet. The buffer must end in NUL. */
static inline size_t head_length(const char *in) {
    const char *end = strstr(in, "\r\n\r\n");
    return end ? (size_t)(end - in) + 4 : 0;
}

#endif
