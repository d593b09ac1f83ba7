/* What the parts of the helper share: see `_usual.c` for what it is. */

#ifndef POSTERN_USUAL_H
#define POSTERN_USUAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define MASK INT64_C(0xFFFFFFFF)
#define HALF INT64_C(0x80000000)
#define SECOND INT64_C(1000000000)
#define ABSENT INT64_MIN /* None, where a number may be unknown */
#define MAX_SAMPLES 4096

/* ---- _usual.c: records, and the packets among them that are left to Python ---- */

typedef struct {
    int64_t start, end, wire, t;
} Record;

typedef struct {
    PyObject_HEAD
    Record *items;
    Py_ssize_t count, room;
} Records;

static inline uint32_t load(const unsigned char *at, int big)
{
    if (big)
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

/* ---- _usual_flow.c, _usual_trips.c: a direction of a flow ---- */

/* An unacknowledged segment, as `tcp` describes it. */
typedef struct {
    int64_t end, time, frame, last;
    int32_t ip_id, checksum, times;
} Segment;

/* What is unacknowledged, in order of sequence: `count` of `items` from `first` on. */
typedef struct {
    PyObject_HEAD
    Segment *items;
    Py_ssize_t first, count, room;
} Segments;

/* Round trips in nanoseconds. */
typedef struct {
    PyObject_HEAD
    uint64_t *items;
    Py_ssize_t count, room;
} Trips;

/* The last packet without payload. */
typedef struct {
    int64_t time, seq, ack;
    int32_t ip_id, checksum, of;
} Signature;

/* Fields of `flows.Direction` by their kind: numbers, numbers or None, and what only Python touches or what may outgrow
 * 64 bits, as the sum of silences does under a clock that jumps to and fro.
 */
#define NUMBERS(X) \
    X(app) X(app_next) X(bytes) X(last) X(last_frame) X(max_flight) X(norm) X(packets) X(payload) X(peak) \
    X(peak_base) X(roll) X(roll_from) X(scaled) X(segments) X(shape) X(shift) X(slow_from) X(span) X(tight) X(win) \
    X(wmax) X(wmin)
#define MAYBE_NUMBERS(X) X(edge) X(head) X(la) X(nseq) X(nseq_time)
#define OBJECTS(X) \
    X(acked) X(base) X(conn) X(dup) X(fin) X(first) X(first_frame) X(holes) X(idle) X(isn) X(keepalive) X(probe) X(recover) \
    X(rtts) X(slow) X(trouble) X(ttl) X(vlan) X(zero_since)

typedef struct Direction {
    PyObject_HEAD
#define AS_NUMBER(name) int64_t name;
    NUMBERS(AS_NUMBER)
    MAYBE_NUMBERS(AS_NUMBER)
#undef AS_NUMBER
#define AS_OBJECT(name) PyObject *name;
    OBJECTS(AS_OBJECT)
#undef AS_OBJECT
    struct Direction *rev; /* the other direction, or NULL */
    Segments *out;
    Segment old;
    Signature signature;
    char known, has_old, has_signature;
} Direction;

extern PyTypeObject segments_type, trips_type, direction_type;

/* 0, or -1 with MemoryError set. */
int segments_push(Segments *self, const Segment *segment);
int trips_push(Trips *self, uint64_t trip);
int trips_setup(void);
/* The number of an item from Python, those behind the end counted from there; -1 with an exception set. */
Py_ssize_t index_of(PyObject *key, Py_ssize_t count);
/* Forget the first `count`, at most as many as there are. */
void segments_drop(Segments *self, Py_ssize_t count);

/* ---- _usual_table.c: from addresses and ports to a direction ---- */

typedef struct {
    uint64_t hash;
    PyObject *key; /* bytes; NULL where the place is free */
    Direction *value;
} Entry;

typedef struct {
    PyObject_HEAD
    Entry *entries;
    size_t mask; /* places less one: a power of two */
    size_t count;
} Table;

extern PyTypeObject table_type;

/* The direction of a key of `size` bytes, a borrowed reference; NULL without an exception when there is none. */
Direction *table_find(const Table *self, const unsigned char *key, Py_ssize_t size);
/* Make the hash one that a sender of packets cannot guess; -1 with an exception set. */
int table_setup(void);

/* ---- _usual_registers.c: tables of Python's ---- */

#define EXACT (INT64_C(1) << 53) /* a double holds whole numbers as far as that */

/* What is held of `state.State`: those from PENDING on are of `dns.DnsTable`, those from HTTP_ROWS on of
 * `http.HttpTable`. Then the bounds of tables.
 */
enum {
    FLOWS, TARGETS, DNS_TABLE, PENDING, NAMES, PARENTS, SERVERS, RCODES, STATUSES, ROWS, ADDRESSES,
    HTTP_TABLE, HTTP_ROWS, HTTP_HOSTS, HTTP_METHODS, HTTP_STATUSES, HTTP_ERRORS, HELD
};
enum { MOST_FLOWS, MOST_ROWS, MOST_NAMES, MOST_PENDING, MOST_FRAMES, BOUNDS };

typedef struct {
    PyObject_HEAD
    PyObject *held[HELD];
    Py_ssize_t most[BOUNDS];
    double slow_dns_s, slow_http_s; /* an answer that takes longer is one that Python looks at */
    int64_t spike_ns; /* round trips below that are none of the longest */
    int datagrams; /* whether they are taken: not where there may be packets in them */
} Registers;

extern PyTypeObject registers_type;

/* Set, or add to, a number in a list or in an attribute of Python's; 0, or -1 with an exception set. */
int put_number(PyObject *list, Py_ssize_t at, int64_t value);
int add_number(PyObject *list, Py_ssize_t at, int64_t more);
int put_attribute(PyObject *object, PyObject *name, int64_t value);
int add_attribute(PyObject *object, PyObject *name, int64_t more);
/* One more of `key` in a dict of numbers; a key that is not there yet is put there while it has fewer than `most`. */
int count_key(PyObject *dict, PyObject *key, Py_ssize_t most);

/* ---- _usual_tcp.c: what becomes of a packet ---- */

typedef struct {
    PyObject_HEAD
    Records *records;
    Py_buffer view;
    Table *tcp;
    Registers *registers;
    PyObject *st;
    Py_ssize_t next, before; /* `before` is where the ethertype is, -1 where there is none */
    int64_t frame, packets6, bytes6, datagrams_taken, datagram_bytes;
} Unusual;

/* What is called of Python, in the order of `bind`; UDP_PORTS and PROBES are no functions but dicts. */
enum {
    OPENING_SYN, OPENING, SEGMENT, ESTABLISHED, ROLL, FEED, SLOW_TRIP,
    UDP_PORTS, UDP_FLOW, UDP_READ, CLOSE_SECOND, PARENT_OF, PARENT_STATS, APP, PAYLOAD, CONVERSATION, PROBES, CALLS
};
extern PyObject *call[CALLS];

/* Take one packet into the flow table. 1: done; 0: nothing was changed, Python shall look; -1: an exception is set. */
int usual_take(Unusual *self, const Record *record, int64_t frame);
int tcp_setup(void);

/* ---- _usual_udp.c: the counting of datagrams ---- */

/* As `usual_take`. */
int udp_take(Unusual *self, const Record *record, int64_t frame);
int udp_setup(void);

/* ---- _usual_dns.c: the usual question and the usual answer ---- */

/* Take the message from `at` to `end` of the buffer; as `usual_take`. */
int dns_take(Unusual *self, PyObject *key, int64_t at, int64_t end, int64_t t, int64_t frame);
int dns_setup(void);

/* ---- _usual_http.c: a segment that begins with a message of HTTP ---- */

/* Take the payload from `position` on, of which `end` is the end of the capture; as `usual_take`. */
int http_take(Unusual *self, Direction *d, int64_t position, int64_t end, int64_t seq, int64_t length, int64_t t,
              int64_t frame);
int http_setup(void);

#endif
