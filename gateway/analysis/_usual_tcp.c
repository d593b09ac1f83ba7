/* TCP over plain IPv4 and IPv6, packet by packet: the part of `batch.run` that comes behind its decoding.
 *
 *   take_next    the short path: the next data, or an acknowledgement that advances, in a flow in which nothing is odd;
 *   take_calm    `tcp.segment` for the case in which it has nothing to say of the segment, as the first of a direction,
 *                the last, and one behind some trouble;
 *   usual_take   what is around them: looking up the flow, and calling Python for all else in the order of `batch.run`.
 *
 * Both of the first two decide before they change anything, and each condition that fails only sends the packet to the
 * rules in Python: they are complete, and what stands here must give what they would.
 */

#include "_usual.h"

typedef struct {
    const Record *record;
    const unsigned char *key, *tcp; /* addresses with ports; the TCP header */
    Py_ssize_t key_size, header;    /* `header` is where `tcp` is in the buffer */
    int64_t frame, seq, ack, win, total; /* `total` counts an IPv4 header of 20 bytes, whatever the version */
    int32_t ip_id, checksum, doff, flags, ttl;
} Packet;

PyObject *call[CALLS];
static PyObject *str_seed, *str_fin, *str_ack_time;

int tcp_setup(void)
{
    str_seed = PyUnicode_InternFromString("_seed");
    str_fin = PyUnicode_InternFromString("fin");
    str_ack_time = PyUnicode_InternFromString("ack_time");
    return str_seed && str_fin && str_ack_time ? 0 : -1;
}

/* What a call of Python's gave: 0, or -1 with the exception set. */
static int called(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Whether a direction has round trips that are looked after here. */
static inline int has_trips(const Direction *r)
{
    return r->rtts != NULL && (r->rtts == Py_None || Py_IS_TYPE(r->rtts, &trips_type));
}

/* One more round trip of `r`: behind the others, or in place of a random one as `State.random` picks it. */
static int sample(Unusual *self, Direction *r, int64_t trip)
{
    if (r->rtts == Py_None) {
        PyObject *made = trips_type.tp_alloc(&trips_type, 0);

        if (made == NULL)
            return -1;
        Py_SETREF(r->rtts, made);
    }
    Trips *samples = (Trips *)r->rtts;
    if (samples->count < MAX_SAMPLES)
        return trips_push(samples, (uint64_t)trip);
    PyObject *seed = PyObject_GetAttr(self->st, str_seed);
    if (seed == NULL)
        return -1;
    uint64_t value = PyLong_AsUnsignedLongLong(seed);
    Py_DECREF(seed);
    if (value == (uint64_t)-1 && PyErr_Occurred())
        return -1;
    value = (value * 1103515245u + 12345u) & 0x7FFFFFFFu;
    seed = PyLong_FromUnsignedLongLong(value);
    if (seed == NULL || PyObject_SetAttr(self->st, str_seed, seed) < 0) {
        Py_XDECREF(seed);
        return -1;
    }
    Py_DECREF(seed);
    samples->items[(value >> 8) % MAX_SAMPLES] = (uint64_t)trip;
    return 0;
}

/* Tell `flows.slow_trip` of a round trip longer than those that are known; the first is usually below all that it keeps. */
static int tell_slow(Unusual *self, Direction *r, int64_t trip, int64_t t, int64_t frame)
{
    if (r->slow == Py_None && trip <= self->registers->spike_ns) {
        PyObject *none = PyList_New(0);

        if (none == NULL)
            return -1;
        Py_SETREF(r->slow, none);
        r->slow_from = self->registers->spike_ns;
        return 0;
    }
    return called(PyObject_CallFunction(call[SLOW_TRIP], "OLLLLn", r, (long long)trip, (long long)t, (long long)frame,
                                        (long long)self->registers->spike_ns, self->registers->most[MOST_FRAMES]));
}

/* Close the current second of a direction, as `tcp.roll` does; a silence is for that. */
static int turn(Unusual *self, Direction *d, int64_t t, int64_t frame)
{
    if (t - d->last > SECOND)
        return called(PyObject_CallFunction(call[ROLL], "OLOL", d, (long long)t, self->st, (long long)frame));
    int64_t payload = d->payload + (d->nseq == ABSENT ? 0 : d->nseq);
    if (payload - d->peak_base > d->peak)
        d->peak = payload - d->peak_base;
    d->peak_base = payload;
    d->roll_from = t;
    d->roll = t + SECOND;
    return 0;
}

/* How many of the unacknowledged segments `ack` covers. */
static Py_ssize_t covered(const Segments *out, int64_t ack)
{
    const Segment *items = out->items + out->first;
    Py_ssize_t count = 0;

    while (count < out->count && ((ack - items[count].end) & MASK) < HALF)
        count++;
    return count;
}

/* Let go of the first `count` segments of `r`, at least one, and take the round trip that their acknowledgement ends. */
static int acknowledge(Unusual *self, Direction *r, Py_ssize_t count, int64_t t, int64_t frame)
{
    Segments *out = r->out;

    r->old = out->items[out->first + count - 1];
    r->has_old = 1;
    segments_drop(out, count);
    int64_t trip = t - r->old.time;
    if (trip < 0) /* sent twice, which is later than any clock: it gives no round trip */
        return 0;
    if (sample(self, r, trip) < 0)
        return -1;
    return trip > r->slow_from ? tell_slow(self, r, trip, t, frame) : 0;
}

/* Hand the payload of a segment to `applications.feed`, unless it is the usual HTTP. */
static int feed(Unusual *self, Direction *d, const Packet *packet, int64_t position, int64_t length)
{
    int taken = http_take(self, d, position, packet->record->end, packet->seq, length, packet->record->t, packet->frame);

    if (taken)
        return taken < 0 ? -1 : 0;
    return called(PyObject_CallFunction(call[FEED], "OOOLLLLLL", self->st, d, self->view.obj, (long long)position,
                                        (long long)packet->record->end, (long long)packet->seq, (long long)length,
                                        (long long)packet->record->t, (long long)packet->frame));
}

/* Whether a direction waits for the byte with which the payload of this segment begins. */
static inline int begins(const Unusual *self, const Packet *packet, int64_t position, int64_t byte)
{
    return position < packet->record->end && ((const unsigned char *)self->view.buf)[position] == byte;
}

/* The short path of `batch.run`, in its order: 1 when the packet was taken, 0 when not, -1 with an exception set. */
static int take_next(Unusual *self, const Packet *packet, Direction *d)
{
    const Record *record = packet->record;
    int64_t seq = packet->seq, ack = packet->ack, win = packet->win, t = record->t;
    Direction *r = d->rev;

    if (packet->doff != d->norm || seq != d->nseq || !win || r == NULL || d->la == ABSENT || d->head == ABSENT ||
        d->edge == ABSENT || r->nseq == ABSENT || r->la == ABSENT || d->shift < 0 || d->shift > 14 || !has_trips(r))
        return 0;
    int64_t length = packet->total - d->head, acked = d->la, waiting = r->nseq, stop = seq + length;
    int64_t position = packet->header + (packet->doff >> 2 & 0x3C); /* of the payload */
    int moved = ack != acked, tighter = 0, wanted = 0;
    if (moved ? !(acked < ack && ack <= waiting && length >= 0) : length <= 0)
        return 0;
    if (length) {
        if (stop >= d->edge || length == 1) {
            int64_t flight = stop - r->la;

            if (flight == r->scaled || (length == 1 && !(r->win > 0)))
                return 0;
            tighter = r->span <= flight && flight < r->scaled;
        }
        if (d->app == 2) {
            int64_t ahead = stop - d->app_next;

            wanted = (ahead > 0 || ahead < -HALF) && 0 < (ahead & MASK) && (ahead & MASK) < HALF;
        }
        else if (d->app)
            wanted = d->app == 1 || begins(self, packet, position, d->app);
    }

    /* From here on the packet is taken. */
    d->tight += tighter;
    d->bytes += record->wire;
    if (t >= d->roll && turn(self, d, t, packet->frame) < 0)
        return -1;
    if (win != d->win) {
        d->win = win;
        d->scaled = win << d->shift;
        if (d->known)
            d->span = d->scaled - d->scaled / 10;
        if (win < d->wmin)
            d->wmin = win;
        else if (win > d->wmax)
            d->wmax = win;
        r->edge = ack + d->span;
    }
    if (moved) {
        const Segments *out = r->out;
        int all = out->count && out->items[out->first + out->count - 1].end == ack;
        Py_ssize_t count = all ? out->count : covered(out, ack);

        if (waiting - acked > r->max_flight)
            r->max_flight = waiting - acked;
        d->la = ack;
        r->edge = ack + d->span;
        if (count && acknowledge(self, r, count, t, packet->frame) < 0)
            return -1;
    }
    if (length) {
        d->nseq = stop;
        d->nseq_time = t;
        d->segments++;
        if (segments_push(d->out, &(Segment){stop, t, packet->frame, t, packet->ip_id, packet->checksum, 1}) < 0)
            return -1;
        if (!(d->segments & 255) && d->out->count > 512)
            segments_drop(d->out, 256);
        if (wanted && feed(self, d, packet, position, length) < 0)
            return -1;
    }
    else {
        d->packets++;
        d->signature = (Signature){t, seq, ack, packet->ip_id, packet->checksum,
                                   (packet->doff << 8 & 0xFF00) | packet->flags};
        d->has_signature = 1;
    }
    d->last = t;
    d->last_frame = packet->frame;
    return 1;
}

/* Whether the rules would have to ask if this is a packet that was recorded twice: all that `tcp._copy` compares but the
 * times is equal.
 */
static int like_before(const Packet *packet, const Direction *d, int64_t end, int64_t length, int of)
{
    if (!length)
        return d->has_signature && d->signature.ip_id == packet->ip_id && d->signature.checksum == packet->checksum &&
               d->signature.of == of && d->signature.seq == packet->seq && d->signature.ack == packet->ack;
    const Segment *entry = d->has_old ? &d->old : NULL;
    for (Py_ssize_t back = 0;; back++) {
        if (entry != NULL && entry->end == end && entry->ip_id == packet->ip_id && entry->checksum == packet->checksum)
            return 1;
        if (back == 8 || back == d->out->count)
            return 0;
        entry = &d->out->items[d->out->first + d->out->count - 1 - back];
    }
}

/* Which of the options that matter are among those of a packet: 1 for timestamps, 2 for selective acknowledgements. */
static int options_of(const Packet *packet)
{
    Py_ssize_t room = (Py_ssize_t)(packet->record->end - packet->header), size = packet->doff >> 2 & 0x3C, at = 20;
    int found = 0;

    if (size > room)
        size = room;
    while (at < size) {
        int kind = packet->tcp[at];

        if (kind == 0)
            break;
        if (kind == 1) {
            at++;
            continue;
        }
        if (at + 1 >= size)
            break;
        int length = packet->tcp[at + 1];
        if (length < 2 || at + length > size)
            break;
        if (kind == 8 && length == 10)
            found |= 1;
        else if (kind == 5 && length >= 10)
            found |= 2;
        at += length;
    }
    return found;
}

static inline int is_none(PyObject *value)
{
    return value == Py_None;
}

/* `tcp.segment` where it finds nothing to tell: in order, acknowledging what was seen, no hole, no loss to recover from,
 * no window of zero, nothing that was seen before. 1 when the segment was taken, 0 when not, -1 with an exception set.
 */
static int take_calm(Unusual *self, const Packet *packet, Direction *d, int of, int64_t length)
{
    int64_t seq = packet->seq, ack = packet->ack, win = packet->win, t = packet->record->t;
    int64_t fin = packet->flags & 1, end = (seq + length + fin) & MASK, nseq = d->nseq, room = 0;
    Direction *r = d->rev;

    if ((packet->flags & ~9) != 16 || r == NULL || nseq != seq || r->nseq < 0 || r->nseq > MASK || !win)
        return 0; /* FIN and PSH may be there; a number that is absent is below zero */
    int same_ack = ack == d->la, stamped = 0;
    if ((same_ack && !length && !fin) || (length == 1 && r->win == 0))
        return 0; /* repeats, window updates; a probe */
    int64_t beyond = (ack - r->nseq) & MASK;
    if ((0 < beyond && beyond < HALF) || !is_none(d->holes) || !is_none(r->holes) || !is_none(d->recover) ||
        !is_none(r->recover) || !is_none(r->trouble) || !is_none(d->zero_since) || !has_trips(r) || d->shift < 0 ||
        d->shift > 14)
        return 0;
    if (length && r->la != ABSENT) {
        room = (r->la + r->scaled - (seq + length)) & MASK;
        if (((r->la - seq - length) & MASK) < HALF || (!fin && r->known && !room))
            return 0; /* acknowledged before it was seen; the window is full */
    }
    if (like_before(packet, d, end, length, of))
        return 0;
    if (of >= 0x6000) {
        stamped = options_of(packet);
        if (stamped & 2)
            return 0;
    }
    Py_ssize_t count = covered(r->out, ack);
    for (Py_ssize_t i = 0; i < count; i++)
        if (r->out->items[r->out->first + i].time == INT64_MAX)
            return 0; /* sent twice, which is counted */

    /* From here on the segment is taken. */
    int64_t payload = d->payload + nseq + length;
    if (d->shape < 0 && !fin) {
        stamped = stamped && of >> 12 == 8;
        d->shape = stamped ? 0x80 : 0x50;
        d->head = stamped ? 52 : 40;
    }
    if (length && r->la != ABSENT && !fin && r->known && r->span != INT64_C(1) << 40 && room <= r->scaled - r->span)
        d->tight++;
    if (!same_ack)
        Py_SETREF(d->dup, PyLong_FromLong(0));
    if (count && acknowledge(self, r, count, t, packet->frame) < 0)
        return -1;
    if (length) {
        if (segments_push(d->out, &(Segment){end, t, packet->frame, t, packet->ip_id, packet->checksum, 1}) < 0)
            return -1;
        if (d->out->count > 512)
            segments_drop(d->out, 256);
        if (r->la != ABSENT) {
            int64_t flight = (end - r->la) & MASK;

            if (d->max_flight < flight && flight < HALF)
                d->max_flight = flight;
        }
        d->segments++;
        d->packets--;
    }
    if (length || fin) {
        d->nseq = end;
        d->nseq_time = t;
    }
    d->la = ack;
    d->win = win;
    d->scaled = win << d->shift;
    d->span = d->known ? d->scaled - d->scaled / 10 : INT64_C(1) << 40;
    if (win > d->wmax)
        d->wmax = win;
    if (win < d->wmin)
        d->wmin = win;
    Py_SETREF(d->keepalive, Py_NewRef(Py_False));
    Py_SETREF(d->probe, Py_NewRef(Py_False));
    d->payload = payload - d->nseq;
    if (!length || fin) {
        d->signature = (Signature){t, seq, ack, packet->ip_id, packet->checksum, of};
        d->has_signature = 1;
    }
    if (fin) {
        PyObject *before = PyObject_GetAttr(self->st, str_fin), *one = PyLong_FromLong(1);
        PyObject *after = before == NULL || one == NULL ? NULL : PyNumber_Add(before, one);
        int told = after == NULL ? -1 : PyObject_SetAttr(self->st, str_fin, after);

        Py_XDECREF(before);
        Py_XDECREF(one);
        Py_XDECREF(after);
        if (told < 0)
            return -1;
        if (is_none(d->fin)) {
            PyObject *row = Py_BuildValue("(LL)", (long long)t, (long long)packet->frame);

            if (row == NULL)
                return -1;
            Py_SETREF(d->fin, row);
        }
    }
    if (r->la != ABSENT)
        d->edge = r->la + r->span;
    r->edge = d->la + d->span;
    int repeats = PyObject_IsTrue(d->dup);
    if (repeats < 0)
        return -1;
    d->norm = repeats || r->la == ABSENT || d->nseq < r->la ? -1 : d->shape;
    return 1;
}

/* The first SYN of a pair of ports: told by itself, so that a flood of them costs one call each. */
static int first_syn(Unusual *self, const Packet *packet)
{
    const Record *record = packet->record;
    int64_t header = packet->doff >> 2;

    if (packet->total - 20 != header || header < 20 || record->end - packet->header < header)
        return 0;
    PyObject *done = PyObject_CallFunction(
        call[OPENING_SYN], "Oy#LLLiLiLy#n", self->st, (const char *)packet->key, packet->key_size,
        (long long)packet->frame, (long long)record->t, (long long)packet->seq, (int)packet->win,
        (long long)((int64_t)packet->ip_id << 16 | packet->checksum), (int)packet->ttl, (long long)record->wire,
        (const char *)(packet->tcp + 20), (Py_ssize_t)(header - 20), (Py_ssize_t)record->start);
    if (done == NULL)
        return -1;
    int taken = done == Py_True;
    Py_DECREF(done);
    return taken;
}

/* Ask `handshake.opening` for the direction of a packet: a new reference, Py_None when all is done, or NULL. */
static PyObject *open_flow(Unusual *self, const Packet *packet, Direction *known, int of, int64_t length)
{
    const Record *record = packet->record;
    PyObject *d = known == NULL ? Py_None : (PyObject *)known;

    return PyObject_CallFunction(
        call[OPENING], "Oy#OLLLLiLLiiiiLOLnL", self->st, (const char *)packet->key, packet->key_size, d,
        (long long)packet->frame, (long long)record->t, (long long)packet->seq, (long long)packet->ack, of,
        (long long)packet->win, (long long)length, (int)packet->ip_id, (int)packet->checksum, (int)packet->ttl, 0,
        (long long)record->wire, self->view.obj, (long long)record->start, packet->header + 20,
        (long long)record->end);
}

/* A segment that is not on the short path, as `batch.run` ends with it. */
static int take_long(Unusual *self, const Packet *packet, Direction *d, int of, int64_t length)
{
    const Record *record = packet->record;
    int64_t position = packet->header + (of >> 10 & 0x3C);

    d->packets++;
    d->bytes += record->wire;
    if (record->t >= d->roll && turn(self, d, record->t, packet->frame) < 0)
        return -1;
    int calm = take_calm(self, packet, d, of, length), fresh = calm && length > 0;
    if (calm < 0)
        return -1;
    if (!calm) {
        PyObject *answer = PyObject_CallFunction(
            call[SEGMENT], "OOLLLLiLLiiiOnL", self->st, d, (long long)packet->frame, (long long)record->t,
            (long long)packet->seq, (long long)packet->ack, of, (long long)packet->win, (long long)length,
            (int)packet->ip_id, (int)packet->checksum, (int)packet->ttl, self->view.obj, packet->header + 20,
            (long long)record->end);

        if (answer == NULL)
            return -1;
        fresh = answer == Py_True;
        Py_DECREF(answer);
    }
    if (fresh && d->app) {
        int64_t ahead = (packet->seq + length - d->app_next) & MASK;
        int wanted = d->app == 2 ? 0 < ahead && ahead < HALF : d->app == 1 || begins(self, packet, position, d->app);

        if (wanted && feed(self, d, packet, position, length) < 0)
            return -1;
    }
    if (of & 0x10) {
        PyObject *known = PyObject_GetAttr(d->conn, str_ack_time);

        if (known == NULL)
            return -1;
        Py_DECREF(known);
        if (is_none(known) && called(PyObject_CallFunction(call[ESTABLISHED], "OOLLLi", self->st, d,
                                                           (long long)record->t, (long long)packet->frame,
                                                           (long long)packet->ack, of & 0x3F)) < 0)
            return -1;
    }
    d->last = record->t;
    d->last_frame = packet->frame;
    return 1;
}

/* Read the headers of a packet; 0 when it is not TCP over plain IPv4 or IPv6, as the batch loop means that. */
static int read_packet(const Unusual *self, const Record *record, int64_t frame, Packet *packet)
{
    int64_t size = record->end - record->start - self->before;

    if (record->start < 0 || record->end > self->view.len || size < 42)
        return 0;
    const unsigned char *ip = (const unsigned char *)self->view.buf + record->start + self->before + 2;
    if (ip[-2] == 0x08 && ip[-1] == 0x00) {
        int fragment = ip[6] << 8 | ip[7];

        if (ip[0] != 0x45 || ip[9] != 6 || (fragment != 0x4000 && fragment & 0x3FFF))
            return 0;
        packet->key = ip + 12;
        packet->key_size = 12;
        packet->total = ip[2] << 8 | ip[3];
        packet->ip_id = ip[4] << 8 | ip[5];
        packet->ttl = ip[8];
        packet->header = (Py_ssize_t)(record->start + self->before + 22);
    }
    else {
        if (ip[-2] != 0x86 || ip[-1] != 0xDD || ip[0] >> 4 != 6 || size < 62 || ip[6] != 6 || ip[52] < 0x50)
            return 0;
        packet->key = ip + 8;
        packet->key_size = 36;
        packet->total = (ip[4] << 8 | ip[5]) + 20;
        packet->ip_id = 0;
        packet->ttl = ip[7];
        packet->header = (Py_ssize_t)(record->start + self->before + 42);
    }
    const unsigned char *tcp = packet->tcp = packet->key + packet->key_size - 4;
    packet->record = record;
    packet->frame = frame;
    packet->seq = (int64_t)load(tcp + 4, 1);
    packet->ack = (int64_t)load(tcp + 8, 1);
    packet->doff = tcp[12];
    packet->flags = tcp[13];
    packet->win = tcp[14] << 8 | tcp[15];
    packet->checksum = tcp[16] << 8 | tcp[17];
    return 1;
}

/* Whether a direction is one of packets without a VLAN; it becomes one where that is not known yet. */
static int without_vlan(Direction *d)
{
    long vlan = PyLong_Check(d->vlan) ? PyLong_AsLong(d->vlan) : 1;

    if (vlan < 0)
        Py_SETREF(d->vlan, PyLong_FromLong(0));
    return vlan <= 0;
}

int usual_take(Unusual *self, const Record *record, int64_t frame)
{
    Packet packet;
    int taken = 0;

    if (!read_packet(self, record, frame, &packet))
        return 0;
    Direction *d = table_find(self->tcp, packet.key, packet.key_size);
    Py_XINCREF(d); /* what is called from here on is Python */
    Direction *r = d == NULL ? NULL : (Direction *)Py_XNewRef((PyObject *)d->rev);
    if (d != NULL && (packet.flags == 16 || packet.flags == 24))
        taken = take_next(self, &packet, d);
    else if (d == NULL && packet.flags == 2 && packet.key_size == 12)
        taken = first_syn(self, &packet);
    if (!taken) {
        int of = packet.doff << 8 | packet.flags;
        int64_t length = packet.total - 20 - (of >> 10 & 0x3C);

        if (length >= 0 && of >= 0x5000 && (d == NULL || without_vlan(d))) {
            taken = 1;
            if (d == NULL || of & 2) {
                PyObject *opened = open_flow(self, &packet, d, of, length);

                if (opened != NULL && opened != Py_None && !Py_IS_TYPE(opened, &direction_type)) {
                    PyErr_SetString(PyExc_TypeError, "opening gives a direction or None");
                    Py_CLEAR(opened);
                }
                if (opened == NULL)
                    taken = -1;
                Py_XDECREF(d);
                Py_XDECREF(r);
                d = taken < 0 || opened == Py_None ? NULL : (Direction *)Py_NewRef(opened);
                r = d == NULL ? NULL : (Direction *)Py_XNewRef((PyObject *)d->rev);
                Py_XDECREF(opened);
            }
            if (d != NULL)
                taken = take_long(self, &packet, d, of, length);
        }
    }
    Py_XDECREF(d);
    Py_XDECREF(r);
    if (taken > 0 && packet.key_size == 36) {
        self->packets6++;
        self->bytes6 += record->wire;
    }
    return taken;
}
