/* Makes a disk fail: preloaded into a process whose inbox is below FAULTS_BELOW, it looks for the
 * file FAULTS before each write and fsync there. "s" in it: fsync fails with EIO. "f": the disk is
 * full. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd, char kind)
{
    const char *below = getenv("FAULTS_BELOW"), *faults = getenv("FAULTS");
    char link[64], path[4096], now = 0;
    ssize_t n;
    int file;

    if (!below || !faults)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n <= 0 || (size_t)n < strlen(below) || strncmp(path, below, strlen(below)))
        return 0;
    file = open(faults, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    if (syscall(SYS_read, file, &now, 1) != 1)
        now = 0;
    close(file);
    return now == kind;
}

int fsync(int fd)
{
    if (fails(fd, 's')) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (fails(fd, 's')) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    if (fails(fd, 'f')) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, count);
}
