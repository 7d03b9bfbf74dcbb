/* Preloaded into the processes of the campaign: counts what they do to files below a folder, and lets one of it fail.

   What is to happen stands in a file that all processes map (struct control, `Control` in preload.py), named by the
   environment variable HW1_FAULTS: so it reaches forked workers, and what torch and safetensors write below Python.
   Nothing happens while it is not armed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, RENAME = 4, UNLINK = 8, MKDIR = 16, FSYNC = 32, TRUNCATE = 64, LINK = 128 };
enum { NOTHING, FAIL, SHORT, SIGNAL, SIGNAL_AFTER };

struct control {
    int32_t armed, ops, action, error, signal, lasting, whom, trace;
    int64_t at, keep, seen, fired;
    char root[512], globs[1024], log[512], path[1024];
};

static struct control *control;

/* The control file; looked up again until there is one, since forked workers are given their environment late. */
static struct control *attached(void) {
    if (control == NULL) {
        const char *name = getenv("HW1_FAULTS");
        if (name == NULL || *name == '\0') return NULL;
        int file = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
        if (file < 0) return NULL;
        void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        syscall(SYS_close, file);
        if (mapped == MAP_FAILED) return NULL;
        control = mapped;
    }
    return control->armed ? control : NULL;
}

static int matches(const char *globs, const char *path) {
    char one[1024];
    for (const char *end; *globs; globs = *end ? end + 1 : end) {
        end = strchrnul(globs, '\n');
        size_t length = (size_t)(end - globs);
        if (length >= sizeof one) continue;
        memcpy(one, globs, length);
        one[length] = '\0';
        if (fnmatch(one, path, 0) == 0) return 1;
    }
    return 0;
}

/* Absolute path of a file descriptor, or of a name in one. */
static void where(char *into, size_t size, int folder, const char *name) {
    char link[64];
    ssize_t length = 0;
    if (name == NULL || name[0] != '/') {
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        length = readlink(link, into, size - 1);
        if (length < 0) length = 0;
    }
    into[length] = '\0';
    if (name != NULL) snprintf(into + length, size - (size_t)length, "%s%s", length ? "/" : "", name);
}

/* What is to become of an operation: its action, if it is the one; *c is the control then. */
static int meets(int op, int folder, const char *name, size_t bytes, struct control **c) {
    static const char *names[] = {"open", "write", "rename", "unlink", "mkdir", "fsync", "truncate", "link"};
    int before = errno;
    char path[1024];
    *c = attached();
    if (*c == NULL) return NOTHING;
    where(path, sizeof path, folder, name);
    errno = before;
    size_t root = strlen((*c)->root);
    if (strncmp(path, (*c)->root, root) != 0 || path[root] != '/') return NOTHING;
    if ((*c)->trace) {
        char line[1200];
        int length = snprintf(line, sizeof line, "%s\t%zu\t%s\n", names[__builtin_ctz((unsigned)op)], bytes, path + root + 1);
        int log = (int)syscall(SYS_openat, AT_FDCWD, (*c)->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        syscall(SYS_write, log, line, (size_t)length);
        syscall(SYS_close, log);
        errno = before;
    }
    if (!((*c)->ops & op) || (*c)->action == NOTHING) return NOTHING;
    if ((*c)->lasting && (*c)->fired) return (*c)->action; /* of every file: the disk is full */
    if (!matches((*c)->globs, path + root + 1)) return NOTHING;
    int64_t number = __atomic_fetch_add(&(*c)->seen, 1, __ATOMIC_SEQ_CST);
    if (number != (*c)->at) return NOTHING;
    int first = __atomic_fetch_add(&(*c)->fired, 1, __ATOMIC_SEQ_CST) == 0;
    if (first) snprintf((*c)->path, sizeof (*c)->path, "%s", path + root + 1);
    /* What fails in the middle of a write: a part is written, and what follows fails. */
    if ((*c)->action == FAIL && op == WRITE && first && (*c)->keep > 0 && (*c)->keep < (int64_t)bytes) {
        if (!(*c)->lasting) (*c)->at += 1;
        return SHORT;
    }
    return (*c)->action;
}

static void send_signal(struct control *c) {
    int before = errno;
    kill(c->whom ? c->whom : getpid(), c->signal);
    if (c->whom && c->signal == SIGKILL && c->whom != getpid()) usleep(20000);
    errno = before;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (real == NULL) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Around a call that either happens or does not. */
#define AROUND(op, folder, name, failed, call) \
    struct control *c; \
    int action = meets(op, folder, name, 0, &c); \
    if (action == FAIL) { errno = c->error; return failed; } \
    if (action == SIGNAL) send_signal(c); \
    __typeof__(call) result = call; \
    if (action == SIGNAL_AFTER) send_signal(c); \
    return result

/* Around a write of `bytes`, which may be done in part: `part` writes c->keep of them. */
#define WRITING(file, bytes, call, part) \
    struct control *c; \
    int action = meets(WRITE, file, NULL, bytes, &c); \
    if (action == FAIL) { errno = c->error; return -1; } \
    int64_t keep = action == NOTHING || c->keep > (int64_t)(bytes) ? (int64_t)(bytes) : c->keep; \
    if (action == SHORT) return keep > 0 ? part : call; \
    if (action == SIGNAL || action == SIGNAL_AFTER) { \
        if (action == SIGNAL_AFTER) keep = (int64_t)(bytes); \
        ssize_t done = keep > 0 ? part : 0; \
        send_signal(c); \
        if (keep > 0) return done; \
    } \
    return call

static size_t total(const struct iovec *parts, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
    return bytes;
}

/* As many of the parts as hold `keep` bytes, in `cut`; returns their number. */
static int first(const struct iovec *parts, int count, size_t keep, struct iovec *cut) {
    int i = 0;
    for (; i < count && keep > 0; i++) {
        cut[i] = parts[i];
        if (cut[i].iov_len > keep) cut[i].iov_len = keep;
        keep -= cut[i].iov_len;
    }
    return i;
}

ssize_t write(int file, const void *data, size_t bytes) {
    REAL(ssize_t, "write", int, const void *, size_t);
    WRITING(file, bytes, real(file, data, bytes), real(file, data, (size_t)keep));
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    WRITING(file, bytes, real(file, data, bytes, at), real(file, data, (size_t)keep, at));
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t at) { return pwrite64(file, data, bytes, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (count < 1 || count > 64) return real(file, parts, count);
    struct iovec cut[64];
    WRITING(file, total(parts, count), real(file, parts, count), real(file, cut, first(parts, count, (size_t)keep, cut)));
}

ssize_t sendfile64(int file, int from, off64_t *at, size_t bytes) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    WRITING(file, bytes, real(file, from, at, bytes), real(file, from, at, (size_t)keep));
}

ssize_t sendfile(int file, int from, off_t *at, size_t bytes) { return sendfile64(file, from, at, bytes); }

ssize_t copy_file_range(int from, off64_t *at, int file, off64_t *to, size_t bytes, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    WRITING(file, bytes, real(from, at, file, to, bytes, flags), real(from, at, file, to, (size_t)keep, flags));
}

#define OPENING(folder, name, call) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return call; \
    AROUND(OPEN, folder, name, -1, call)

int open64(const char *name, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    OPENING(AT_FDCWD, name, real(name, flags, mode));
}

int open(const char *name, int flags, ...) {
    REAL(int, "open", const char *, int, ...);
    OPENING(AT_FDCWD, name, real(name, flags, mode));
}

int openat64(int folder, const char *name, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    OPENING(folder, name, real(folder, name, flags, mode));
}

int openat(int folder, const char *name, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    OPENING(folder, name, real(folder, name, flags, mode));
}

FILE *fopen64(const char *name, const char *mode) {
    REAL(FILE *, "fopen64", const char *, const char *);
    if (mode[0] == 'r' && !strchr(mode, '+')) return real(name, mode);
    AROUND(OPEN, AT_FDCWD, name, NULL, real(name, mode));
}

FILE *fopen(const char *name, const char *mode) { return fopen64(name, mode); }

int renameat2(int one, const char *old, int two, const char *name, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    AROUND(RENAME, two, name, -1, real(one, old, two, name, flags));
}

int renameat(int one, const char *old, int two, const char *name) { return renameat2(one, old, two, name, 0); }

int rename(const char *old, const char *name) { return renameat2(AT_FDCWD, old, AT_FDCWD, name, 0); }

int unlinkat(int folder, const char *name, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    AROUND(UNLINK, folder, name, -1, real(folder, name, flags));
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    AROUND(MKDIR, folder, name, -1, real(folder, name, mode));
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int linkat(int one, const char *old, int two, const char *name, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    AROUND(LINK, two, name, -1, real(one, old, two, name, flags));
}

int link(const char *old, const char *name) { return linkat(AT_FDCWD, old, AT_FDCWD, name, 0); }

int fsync(int file) {
    REAL(int, "fsync", int);
    AROUND(FSYNC, file, NULL, -1, real(file));
}

int fdatasync(int file) {
    REAL(int, "fdatasync", int);
    AROUND(FSYNC, file, NULL, -1, real(file));
}

int ftruncate64(int file, off64_t bytes) {
    REAL(int, "ftruncate64", int, off64_t);
    AROUND(TRUNCATE, file, NULL, -1, real(file, bytes));
}

int ftruncate(int file, off_t bytes) { return ftruncate64(file, bytes); }
