/* flock(2) as NFS has it (Linux 2.6.12 and later), for files whose path contains "/nfs/": LOCK_EX fails with EBADF if the
 * file is not open for writing. While the file named by NFS_WITHOUT_LOCKS exists, flock fails with ENOLCK, as on a mount
 * without locks.
 * Built into a shared library for LD_PRELOAD. https://man7.org/linux/man-pages/man2/flock.2.html, "NFS details" */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int flock(int descriptor, int operation) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    if (strstr(path, "/nfs/")) {
        const char *without = getenv("NFS_WITHOUT_LOCKS");
        if (without && access(without, F_OK) == 0) {
            errno = ENOLCK;
            return -1;
        }
        if ((operation & LOCK_EX) && (fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY) {
            errno = EBADF;
            return -1;
        }
    }
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(descriptor, operation);
}
