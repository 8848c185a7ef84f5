/* Preloaded into a process, it makes the disk under some files fail or slow, as a page of shared memory says.

   FAULTY_DISK_CONTROL names the file of that page, FAULTY_DISK_FILE a part of the path of the files that are meant. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct control {
  int64_t read_errno;   /* reads fail with it; 0 is none */
  int64_t read_from;    /* those that touch these bytes of the file */
  int64_t read_to;
  int64_t read_inode;   /* only of this file; 0 is any: bad sectors do not come along when a file is written anew */
  int64_t sync_errno;   /* syncs fail with it */
  int64_t sync_delay_ms;
  int64_t faults_left;  /* so many more faults; below 0 is without end */
  int64_t reads_failed; /* counted here */
  int64_t syncs_failed;
  int64_t syncs;
};

static volatile struct control *control;
static const char *part;

__attribute__((constructor)) static void begin(void) {
  const char *name = getenv("FAULTY_DISK_CONTROL");
  part = getenv("FAULTY_DISK_FILE");
  int descriptor = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (descriptor < 0) return;
  void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  close(descriptor);
  if (page != MAP_FAILED) control = page;
}

static int is_meant(int descriptor) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return part == NULL || strstr(path, part) != NULL;
}

static int is_inode(int descriptor) {
  struct stat status;
  return !control->read_inode || (fstat(descriptor, &status) == 0 && (int64_t)status.st_ino == control->read_inode);
}

static int take_fault(void) {
  int64_t left = control->faults_left;
  if (left == 0) return 0;
  if (left > 0) control->faults_left = left - 1;
  return 1;
}

ssize_t pread64(int descriptor, void *buffer, size_t count, off64_t offset) {
  static ssize_t (*real)(int, void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pread64");
  if (control && control->read_errno && offset < control->read_to
      && offset + (off64_t)count > control->read_from && is_meant(descriptor) && is_inode(descriptor) && take_fault()) {
    control->reads_failed++;
    errno = (int)control->read_errno;
    return -1;
  }
  return real(descriptor, buffer, count, offset);
}

static int sync_with(const char *name, int descriptor) {
  int (*real)(int) = dlsym(RTLD_NEXT, name);
  if (control && is_meant(descriptor)) {
    control->syncs++;
    if (control->sync_delay_ms) usleep((useconds_t)control->sync_delay_ms * 1000);
    if (control->sync_errno && take_fault()) {
      control->syncs_failed++;
      errno = (int)control->sync_errno;
      return -1; /* and nothing is synced */
    }
  }
  return real(descriptor);
}

int fdatasync(int descriptor) { return sync_with("fdatasync", descriptor); }
int fsync(int descriptor) { return sync_with("fsync", descriptor); }
