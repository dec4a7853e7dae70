/* Faults of file operations, for test_faults.py: a library to preload that counts the operations which change files
 * below FAULTS_UNDER, and does FAULTS_KIND at operation FAULTS_AT:
 *
 *   kill          ends the process before it          kill-after    ends the process after it
 *   kill-short    writes half of the bytes, then ends the process (other operations: as kill)
 *   full-once     fails with ENOSPC                   full          fails with ENOSPC, and so do all after it
 *                 (but for those that need no room)
 *   broken-once   fails with EIO                      read-only     fails with EROFS, and so do all after it
 *
 * With FAULTS_LOG every operation becomes a line of that file, which ends with "fault" if one was made. The variables are read at each operation, so that a
 * process may set them before it begins. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) __typeof__(&name) real = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

static long count;

static int below(const char *path) {
    const char *under = getenv("FAULTS_UNDER");
    return under && *under && path && strncmp(path, under, strlen(under)) == 0;
}

static const char *path_of(int descriptor, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return path;
}

/* Whether the kind of fault begins with `what`. */
static int is(const char *what) {
    const char *kind = getenv("FAULTS_KIND");
    return kind && strncmp(kind, what, strlen(what)) == 0;
}

static void end(void) { syscall(SYS_kill, getpid(), SIGKILL); }

enum fate { FAIL = -1, DO_IT, DO_IT_AND_END, DO_HALF_AND_END, END };

static enum fate fate_of(const char *what, long number) {
    const char *at = getenv("FAULTS_AT");
    if (!at || number < atol(at)) return DO_IT;
    if (number > atol(at) && (is("kill") || is("full-once") || is("broken-once"))) return DO_IT;
    if (is("kill-after")) return DO_IT_AND_END;
    if (is("kill-short") && strcmp(what, "write") == 0) return DO_HALF_AND_END;
    if (is("kill")) return END;
    if (is("full") && (!strcmp(what, "unlink") || !strcmp(what, "rmdir") || !strcmp(what, "chmod"))) return DO_IT;
    errno = is("full") ? ENOSPC : is("broken") ? EIO : EROFS;
    return FAIL;
}

/* What becomes of an operation, which is about to be done. */
static enum fate before(const char *what, const char *path) {
    if (!below(path)) return DO_IT;
    long number = ++count;
    enum fate fate = fate_of(what, number);
    int error = errno;
    const char *log = getenv("FAULTS_LOG");
    if (log) {
        char line[4400];
        int length = snprintf(line, sizeof line, "%ld %s %s%s\n", number, what, path, fate ? " fault" : "");
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
        syscall(SYS_write, file, line, length);
        syscall(SYS_close, file);
    }
    if (fate == END) end();
    errno = error;
    return fate;
}

/* Around an operation whose failure is -1. */
#define DO(what, path, call)             \
    do {                                 \
        enum fate fate = before(what, path); \
        if (fate == FAIL) return -1;     \
        __typeof__(call) result = call;  \
        if (fate == DO_IT_AND_END) end();\
        return result;                   \
    } while (0)

static int changes(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC); }

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!changes(flags)) return real(path, flags, mode);
    DO("open", path, real(path, flags, mode));
}

#define MODE(flags)                      \
    mode_t mode = 0;                     \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                    \
        va_start(rest, flags);           \
        mode = va_arg(rest, mode_t);     \
        va_end(rest);                    \
    }

int open(const char *path, int flags, ...) {
    MODE(flags) REAL(open);
    return opened(real, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags) REAL(open64);
    return opened(real, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags) REAL(openat);
    if (!changes(flags)) return real(folder, path, flags, mode);
    DO("open", path, real(folder, path, flags, mode));
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags) REAL(openat64);
    if (!changes(flags)) return real(folder, path, flags, mode);
    DO("open", path, real(folder, path, flags, mode));
}

FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64);
    if (*mode == 'r' && !strchr(mode, '+')) return real(path, mode);
    enum fate fate = before("open", path);
    if (fate == FAIL) return NULL;
    FILE *file = real(path, mode);
    if (fate == DO_IT_AND_END) end();
    return file;
}

static ssize_t written(const char *path, int descriptor, const void *data, size_t size, off_t offset, int placed) {
    enum fate fate = before("write", path);
    if (fate == FAIL) return -1;
    if (fate == DO_HALF_AND_END) size /= 2;
    ssize_t result = placed ? syscall(SYS_pwrite64, descriptor, data, size, offset)
                            : syscall(SYS_write, descriptor, data, size);
    if (fate == DO_IT_AND_END || fate == DO_HALF_AND_END) end();
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char path[4096];
    return written(path_of(descriptor, path, sizeof path), descriptor, data, size, 0, 0);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    char path[4096];
    return written(path_of(descriptor, path, sizeof path), descriptor, data, size, offset, 1);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    char path[4096];
    return written(path_of(descriptor, path, sizeof path), descriptor, data, size, offset, 1);
}

ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    char path[4096];
    REAL(writev);
    DO("writev", path_of(descriptor, path, sizeof path), real(descriptor, parts, number));
}

ssize_t sendfile64(int descriptor, int from, off64_t *offset, size_t size) {
    char path[4096];
    REAL(sendfile64);
    DO("sendfile", path_of(descriptor, path, sizeof path), real(descriptor, from, offset, size));
}

ssize_t sendfile(int descriptor, int from, off_t *offset, size_t size) {
    char path[4096];
    REAL(sendfile);
    DO("sendfile", path_of(descriptor, path, sizeof path), real(descriptor, from, offset, size));
}

int fsync(int descriptor) {
    char path[4096];
    REAL(fsync);
    DO("fsync", path_of(descriptor, path, sizeof path), real(descriptor));
}

int ftruncate(int descriptor, off_t length) {
    char path[4096];
    REAL(ftruncate);
    DO("ftruncate", path_of(descriptor, path, sizeof path), real(descriptor, length));
}

int ftruncate64(int descriptor, off64_t length) {
    char path[4096];
    REAL(ftruncate64);
    DO("ftruncate", path_of(descriptor, path, sizeof path), real(descriptor, length));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    DO("rename", to, real(from, to));
}

int unlink(const char *path) {
    REAL(unlink);
    DO("unlink", path, real(path));
}

int rmdir(const char *path) {
    REAL(rmdir);
    DO("rmdir", path, real(path));
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    DO("mkdir", path, real(path, mode));
}

int chmod(const char *path, mode_t mode) {
    REAL(chmod);
    DO("chmod", path, real(path, mode));
}
