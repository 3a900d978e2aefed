// A library to be loaded before all others (LD_PRELOAD). It writes a line to the file that
// NETWORK_WATCH names for
//   - every process that loads it:                                    "process PROGRAM"
//   - every name that is looked up, other than a number:              "name NAME"
//   - every connection or packet to another address than loopback:    "address ADDRESS PORT"
// and has such look-ups and connections fail, so that nothing leaves the machine. Resolvers that
// are linked into a library (c-ares in gRPC, curl in ONNX Runtime) call these functions, or send
// packets to port 53, which is seen as an address.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

void report(const char* what, const char* value, int port = -1) {
  const int error = errno;
  const char* path = getenv("NETWORK_WATCH");
  const int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (file >= 0) {
    char line[1200];
    const int length = port < 0 ? snprintf(line, sizeof line, "%s %.1000s\n", what, value)
                                : snprintf(line, sizeof line, "%s %.1000s %d\n", what, value, port);
    if (write(file, line, length) != length) abort();
    close(file);
  }
  errno = error;
}

__attribute__((constructor)) void begin() {
  char program[1000] = "?";
  if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) strcpy(program, "?");
  report("process", program);
}

bool is_number(const char* name) {
  unsigned char address[sizeof(in6_addr)];
  return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

// Whether a name may be looked up: what the system knows without asking anybody.
bool is_here(const char* name) {
  return name == nullptr || is_number(name) || strcmp(name, "localhost") == 0;
}

bool looked_up(const char* name) {
  if (is_here(name)) return false;
  report("name", name);
  return true;
}

// Whether packets to an address leave the machine; says so.
bool leaves(const sockaddr* to) {
  if (to == nullptr) return false;
  char text[INET6_ADDRSTRLEN] = "";
  if (to->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(to);
    if (ntohl(v4->sin_addr.s_addr) >> 24 == 127 || v4->sin_addr.s_addr == INADDR_ANY) return false;
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    report("address", text, ntohs(v4->sin_port));
    return true;
  }
  if (to->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(to);
    const in6_addr& address = v6->sin6_addr;
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == 127;
    if (IN6_IS_ADDR_LOOPBACK(&address) || IN6_IS_ADDR_UNSPECIFIED(&address) || mapped) return false;
    inet_ntop(AF_INET6, &address, text, sizeof text);
    report("address", text, ntohs(v6->sin6_port));
    return true;
  }
  return false;  // AF_UNIX, AF_NETLINK, AF_UNSPEC
}

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int unreachable() {
  errno = ENETUNREACH;
  return -1;
}

}  // namespace

extern "C" {

int getaddrinfo(const char* name, const char* service, const addrinfo* hints, addrinfo** found) {
  if (looked_up(name)) return EAI_FAIL;
  return real<decltype(getaddrinfo)>("getaddrinfo")(name, service, hints, found);
}

hostent* gethostbyname(const char* name) {
  if (looked_up(name)) return nullptr;
  return real<decltype(gethostbyname)>("gethostbyname")(name);
}

hostent* gethostbyname2(const char* name, int family) {
  if (looked_up(name)) return nullptr;
  return real<decltype(gethostbyname2)>("gethostbyname2")(name, family);
}

int gethostbyname_r(const char* name, hostent* host, char* buffer, size_t size, hostent** found,
                    int* error) {
  if (looked_up(name)) return ENOENT;
  return real<decltype(gethostbyname_r)>("gethostbyname_r")(name, host, buffer, size, found, error);
}

int gethostbyname2_r(const char* name, int family, hostent* host, char* buffer, size_t size,
                     hostent** found, int* error) {
  if (looked_up(name)) return ENOENT;
  return real<decltype(gethostbyname2_r)>("gethostbyname2_r")(name, family, host, buffer, size,
                                                               found, error);
}

// Questions to name servers; nobody here has a reason to ask one, so that all of them fail.
#define QUESTION(function) \
  int function(const char* name, int, int, unsigned char*, int) { return report("name", name), -1; }
#define QUESTION_OF(function)                                                  \
  int function(void*, const char* name, int, int, unsigned char*, int) {       \
    return report("name", name), -1;                                           \
  }
QUESTION(res_query)
QUESTION(res_search)
QUESTION(__res_query)
QUESTION(__res_search)
QUESTION_OF(res_nquery)
QUESTION_OF(res_nsearch)
QUESTION_OF(__res_nquery)
QUESTION_OF(__res_nsearch)

int connect(int file, const sockaddr* to, socklen_t size) {
  if (leaves(to)) return unreachable();
  return real<decltype(connect)>("connect")(file, to, size);
}

ssize_t sendto(int file, const void* data, size_t size, int flags, const sockaddr* to,
               socklen_t to_size) {
  if (leaves(to)) return unreachable();
  return real<decltype(sendto)>("sendto")(file, data, size, flags, to, to_size);
}

ssize_t sendmsg(int file, const msghdr* message, int flags) {
  if (leaves(static_cast<const sockaddr*>(message->msg_name))) return unreachable();
  return real<decltype(sendmsg)>("sendmsg")(file, message, flags);
}

int sendmmsg(int file, mmsghdr* messages, unsigned int count, int flags) {
  for (unsigned int i = 0; i < count; i++)
    if (leaves(static_cast<const sockaddr*>(messages[i].msg_hdr.msg_name))) return unreachable();
  return real<decltype(sendmmsg)>("sendmmsg")(file, messages, count, flags);
}

}  // extern "C"
