/* Answers every chat completion at once, so that a benchmark measures its client and not a model.
 *
 *     cc -O2 -o instant_server instant_server.c && ./instant_server MODEL
 *
 * One thread, epoll, HTTP/1.1 with keep-alive, on a free port of loopback that it prints. It ends with its parent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 18, EVENTS = 256, ANSWER = 4096 };

struct connection {
    int fd;
    size_t used;
    char bytes[ROOM + 1];
};

static const char *model;
static unsigned long served;

static void or_die(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int answer(char *out, int is_post) {
    char body[ANSWER / 2];
    int length;
    if (is_post)
        length = snprintf(body, sizeof body,
            "{\"id\":\"chatcmpl-%016lx\",\"object\":\"chat.completion\",\"created\":1764000000,\"model\":\"%s\","
            "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The answer is 42. #### 42\","
            "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
            "\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":8,\"total_tokens\":28}}", ++served, model);
    else
        length = snprintf(body, sizeof body,
            "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1764000000,"
            "\"owned_by\":\"benchmark\"}]}", model);
    /* The limits are for clients that slow down to what a server says it takes. */
    return snprintf(out, ANSWER, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        "x-ratelimit-limit-requests: 100000000\r\nx-ratelimit-limit-tokens: 10000000000\r\n"
        "Content-Length: %d\r\n\r\n%s", length, body);
}

static int send_all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0)
            return -1;
        bytes += sent;
        length -= (size_t)sent;
    }
    return 0;
}

/* Answer every whole request that has arrived; -1 if the connection is to be closed. */
static int serve(struct connection *c) {
    char out[ANSWER];
    ssize_t got = recv(c->fd, c->bytes + c->used, ROOM - c->used, 0);
    if (got <= 0)
        return -1;
    c->used += (size_t)got;
    c->bytes[c->used] = 0;
    char *start = c->bytes, *end;
    int closing = 0;
    while ((end = strstr(start, "\r\n\r\n"))) {
        *end = 0;
        const char *field = strcasestr(start, "\r\ncontent-length:");
        size_t size = (size_t)(end + 4 - start) + (field ? strtoul(field + 17, NULL, 10) : 0);
        closing |= strcasestr(start, "\r\nconnection: close") != NULL;
        *end = '\r';
        if ((size_t)(c->bytes + c->used - start) < size)
            break;
        if (send_all(c->fd, out, (size_t)answer(out, *start == 'P')))
            return -1;
        start += size;
    }
    c->used -= (size_t)(start - c->bytes);
    memmove(c->bytes, start, c->used);
    return closing || c->used == ROOM ? -1 : 0;
}

int main(int count, char **arguments) {
    model = count > 1 ? arguments[1] : "instant";
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), queue = epoll_create1(0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    or_die(bind(listener, (struct sockaddr *)&place, size), "bind");
    or_die(listen(listener, 1024), "listen");
    or_die(getsockname(listener, (struct sockaddr *)&place, &size), "getsockname");
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    or_die(epoll_ctl(queue, EPOLL_CTL_ADD, listener, &wanted), "epoll_ctl");
    for (;;) {
        int ready = epoll_wait(queue, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c) {
                if (serve(c)) {
                    close(c->fd);
                    free(c);
                }
                continue;
            }
            c = malloc(sizeof *c);
            if (!c || (c->fd = accept(listener, NULL, NULL)) < 0) {
                free(c);
                continue;
            }
            c->used = 0;
            setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            wanted.data.ptr = c;
            or_die(epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &wanted), "epoll_ctl");
        }
    }
}
