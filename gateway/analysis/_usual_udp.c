/* UDP over plain IPv4: the counting of `udp.datagram`, and the opening of a flow as `udp` does it.
 *
 * A datagram for which more is to be done than to count (a silence, a full table, the fourth of a direction) is left to
 * Python before anything was changed. What is in one that is worth reading goes to `_usual_dns.c` or to `udp.read`.
 * All tables are those of Python, so that it makes no difference who takes which datagram.
 */

#include "_usual.h"

/* Positions in a direction, in the counters of a target, and what datagrams are for: see `udp`. */
enum { U_REV, U_FLOW, U_PACKETS, U_BYTES, U_LAST, U_LAST_FRAME, U_PAYLOAD, U_APP, U_TARGET, U_PACE, U_SLOTS = 13 };
enum { T_COUNT, T_UNTIL, T_BINS, T_TOTAL, T_FIRST_FRAME, T_LAST_FRAME, T_SOURCES, T_SLOTS = 8 };

#define KEY 12
#define DNS 1
#define UNKNOWN 7
#define BUSY_SECOND 50
#define MOST_TARGETS 65536
#define MOST_PACE 512
#define MOST_SOURCES 256
#define LATEST (INT64_C(1) << 62) /* ns: what comes later is left to numbers without bounds */

static PyObject *str_base, *str_udp_flows, *str_append, *str_orig, *str_resp, *str_service, *dns_service;

int udp_setup(void)
{
    str_base = PyUnicode_InternFromString("base");
    str_udp_flows = PyUnicode_InternFromString("udp_flows");
    str_append = PyUnicode_InternFromString("append");
    str_orig = PyUnicode_InternFromString("orig");
    str_resp = PyUnicode_InternFromString("resp");
    str_service = PyUnicode_InternFromString("service");
    dns_service = Py_BuildValue("(sds)", "dns", 1.0, "payload");
    return str_base && str_udp_flows && str_append && str_orig && str_resp && str_service && dns_service ? 0 : -1;
}

/* Whether a list of Python's has as many items as it should. */
static int has_slots(PyObject *list, Py_ssize_t slots)
{
    if (PyList_CheckExact(list) && PyList_GET_SIZE(list) == slots)
        return 1;
    PyErr_SetString(PyExc_TypeError, "a row of the tables of UDP has another size");
    return 0;
}

/* `udp.target_row`, a new reference. */
static PyObject *target_row(PyObject *targets, const unsigned char *key, int64_t frame)
{
    PyObject *source = PyBytes_FromStringAndSize((const char *)key, 4);
    PyObject *address = PyBytes_FromStringAndSize((const char *)key + 4, 4), *row = NULL;

    if (source == NULL || address == NULL)
        goto done;
    row = Py_XNewRef(PyDict_GetItemWithError(targets, address));
    if (row == NULL) {
        if (!PyErr_Occurred() && PyDict_GET_SIZE(targets) >= MOST_TARGETS)
            row = Py_NewRef(Py_None);
        else if (!PyErr_Occurred()) {
            row = Py_BuildValue("[ii{}iLL(O)i]", 0, 0, 0, (long long)frame, (long long)frame, source, 0);
            if (row != NULL && PyDict_SetItem(targets, address, row) < 0)
                Py_CLEAR(row);
        }
        goto done;
    }
    if (!has_slots(row, T_SLOTS)) {
        Py_CLEAR(row);
        goto done;
    }
    PyObject *sources = PyList_GET_ITEM(row, T_SOURCES);
    int known = PySequence_Contains(sources, source), failed = known < 0;
    Py_ssize_t count = known ? 0 : PyObject_Size(sources);
    if (count == 1) { /* most have one, and a tuple of one is small */
        PyObject *set = PySet_New(sources);

        failed = set == NULL || PySet_Add(set, source) < 0 || PyList_SetItem(row, T_SOURCES, Py_NewRef(set)) < 0;
        Py_XDECREF(set);
    }
    else if (!known && count < MOST_SOURCES)
        failed = count < 0 || PySet_Add(sources, source) < 0;
    if (failed)
        Py_CLEAR(row);
done:
    Py_XDECREF(source);
    Py_XDECREF(address);
    return row;
}

/* What a datagram is for, by its ports: a new reference. */
static PyObject *app_of(const unsigned char *key)
{
    PyObject *app = NULL;

    for (int at = KEY - 2; at >= KEY - 4 && app == NULL; at -= 2) {
        PyObject *port = PyBytes_FromStringAndSize((const char *)key + at, 2);

        if (port == NULL)
            return NULL;
        app = Py_XNewRef(PyDict_GetItemWithError(call[UDP_PORTS], port));
        Py_DECREF(port);
        if (app == NULL && PyErr_Occurred())
            return NULL;
    }
    return app != NULL ? app : PyLong_FromLong(UNKNOWN);
}

/* Make the direction of a key, and its flow where the other direction has none: a new reference. */
static PyObject *open_direction(Unusual *self, PyObject *key, int64_t t, int64_t frame, int64_t start)
{
    const unsigned char *bytes = (const unsigned char *)PyBytes_AS_STRING(key);
    unsigned char reversed[KEY];
    PyObject *directions = self->registers->held[FLOWS], *back = NULL, *flow = NULL, *app = NULL, *target = NULL;
    PyObject *d = NULL, *flows = NULL, *base = NULL, *offset = NULL, *first = NULL;

    for (int i = 0; i < KEY; i++)
        reversed[i] = bytes[i < 8 ? i ^ 4 : i ^ 2];
    PyObject *other = PyBytes_FromStringAndSize((const char *)reversed, KEY);
    if (other == NULL)
        return NULL;
    back = PyDict_GetItemWithError(directions, other);
    Py_DECREF(other);
    if ((back == NULL && PyErr_Occurred()) || (back != NULL && !has_slots(back, U_SLOTS)))
        return NULL;
    if (back != NULL)
        flow = Py_NewRef(PyList_GET_ITEM(back, U_FLOW));
    else {
        base = PyObject_GetAttr(self->st, str_base);
        first = PyLong_FromLongLong(start);
        offset = base == NULL || first == NULL ? NULL : PyNumber_Add(base, first);
        flow = offset == NULL ? NULL
                              : PyObject_CallFunction(call[UDP_FLOW], "OLLOi", key, (long long)t, (long long)frame, offset, 0);
        flows = flow == NULL ? NULL : PyObject_GetAttr(self->st, str_udp_flows);
        PyObject *done = flows == NULL ? NULL : PyObject_CallMethodOneArg(flows, str_append, flow);
        if (done == NULL)
            Py_CLEAR(flow);
        Py_XDECREF(done);
    }
    app = flow == NULL ? NULL : app_of(bytes);
    target = app == NULL ? NULL : target_row(self->registers->held[TARGETS], bytes, frame);
    if (target != NULL)
        d = Py_BuildValue("[OOiiLLiOOOOLL]", back == NULL ? Py_None : back, flow, 0, 0, (long long)t, (long long)frame, 0,
                          app, target, Py_None, Py_None, (long long)t, (long long)frame);
    if (d != NULL) {
        PyObject *side = str_orig;
        int failed = 0;

        if (back != NULL) {
            PyObject *orig = PyObject_GetAttr(flow, str_orig);

            side = orig == back ? str_resp : str_orig;
            failed = orig == NULL || PyList_SetItem(back, U_REV, Py_NewRef(d)) < 0;
            Py_XDECREF(orig);
        }
        if (failed || PyObject_SetAttr(flow, side, d) < 0 || PyDict_SetItem(directions, key, d) < 0)
            Py_CLEAR(d);
    }
    Py_XDECREF(flow);
    Py_XDECREF(app);
    Py_XDECREF(target);
    Py_XDECREF(flows);
    Py_XDECREF(base);
    Py_XDECREF(offset);
    Py_XDECREF(first);
    return d;
}

/* Count a datagram at its target; the second before is closed here unless it was a busy one. */
static int count_target(PyObject *target, int64_t t, int64_t frame)
{
    if (!has_slots(target, T_SLOTS))
        return -1;
    int far = 0; /* the second behind the last one that 64 bits hold */
    int64_t until = PyLong_AsLongLongAndOverflow(PyList_GET_ITEM(target, T_UNTIL), &far);
    int64_t count = PyErr_Occurred() ? -1 : PyLong_AsLongLong(PyList_GET_ITEM(target, T_COUNT));
    if (PyErr_Occurred())
        return -1;
    if (far || t >= until || until - t > SECOND) {
        if (count >= BUSY_SECOND) {
            PyObject *done = PyObject_CallFunction(call[CLOSE_SECOND], "OL", target, (long long)t);

            Py_XDECREF(done);
            if (done == NULL)
                return -1;
        }
        else if (put_number(target, T_UNTIL, (t / SECOND + 1) * SECOND) < 0)
            return -1;
        count = 0;
    }
    return put_number(target, T_COUNT, count + 1) < 0 || add_number(target, T_TOTAL, 1) < 0 ||
                   put_number(target, T_LAST_FRAME, frame) < 0
               ? -1
               : 0;
}

/* Hand the payload of a datagram to whoever reads such. */
static int read_payload(Unusual *self, PyObject *d, PyObject *key, int64_t at, int64_t end, int64_t payload, int64_t t,
                        int64_t frame)
{
    PyObject *app = PyList_GET_ITEM(d, U_APP), *flow = PyList_GET_ITEM(d, U_FLOW);
    long number = PyLong_AsLong(app);

    if (number == -1 && PyErr_Occurred())
        return -1;
    if (!number)
        return 0;
    if (number == DNS) {
        int taken = dns_take(self, key, at, end, t, frame);

        if (taken)
            return taken < 0 ? -1 : PyObject_SetAttr(flow, str_service, dns_service);
    }
    PyObject *done = PyObject_CallFunction(call[UDP_READ], "OOOOOLLLLL", self->st, d, app, key, self->view.obj,
                                           (long long)at, (long long)end, (long long)payload, (long long)t,
                                           (long long)frame);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Whether a direction that is new may be made here: where the table of flows is full, Python makes room. */
static int has_room(Unusual *self)
{
    PyObject *flows = PyObject_GetAttr(self->st, str_udp_flows);
    Py_ssize_t count = flows == NULL ? -1 : PyObject_Size(flows);

    Py_XDECREF(flows);
    return count < 0 ? -1 : count < self->registers->most[MOST_FLOWS];
}

int udp_take(Unusual *self, const Record *record, int64_t frame)
{
    int64_t size = record->end - record->start - self->before, t = record->t, since = 0, packets = 0;

    if (!self->registers->datagrams || record->start < 0 || record->end > self->view.len || size < 42 || t < 0 ||
        t > LATEST)
        return 0;
    const unsigned char *ip = (const unsigned char *)self->view.buf + record->start + self->before + 2;
    int64_t total = ip[2] << 8 | ip[3], length = ip[24] << 8 | ip[25], at = record->start + self->before + 30;
    if (ip[-2] != 0x08 || ip[-1] != 0x00 || ip[0] != 0x45 || ip[9] != 17 || (ip[6] << 8 | ip[7]) & 0x3FFF || length < 8 ||
        length > total - 20)
        return 0;
    PyObject *key = PyBytes_FromStringAndSize((const char *)ip + 12, KEY);
    PyObject *d = key == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(self->registers->held[FLOWS], key));
    int taken = PyErr_Occurred() ? -1 : 1;
    if (taken > 0 && d == NULL)
        taken = has_room(self);
    else if (taken > 0) {
        taken = has_slots(d, U_SLOTS) ? 1 : -1;
        int64_t last = taken < 0 ? 0 : PyLong_AsLongLong(PyList_GET_ITEM(d, U_LAST));
        packets = PyErr_Occurred() ? 0 : PyLong_AsLongLong(PyList_GET_ITEM(d, U_PACKETS));
        if (PyErr_Occurred())
            taken = -1;
        else if (last < 0 || last > LATEST || t - last > SECOND || (packets == 3 && PyList_GET_ITEM(d, U_PACE) == Py_None))
            taken = 0;
        since = t - last;
    }
    if (taken > 0 && d == NULL && (d = open_direction(self, key, t, frame, record->start)) == NULL)
        taken = -1;
    if (taken > 0) {
        int64_t end = record->end < at + length - 8 ? record->end : at + length - 8;
        PyObject *pace = PyList_GET_ITEM(d, U_PACE), *target = PyList_GET_ITEM(d, U_TARGET);
        Py_ssize_t paces = pace == Py_None ? MOST_PACE : PyObject_Size(pace);

        if (paces < 0 || add_number(d, U_PACKETS, 1) < 0 || add_number(d, U_BYTES, record->wire) < 0 ||
            add_number(d, U_PAYLOAD, length - 8) < 0 || put_number(d, U_LAST, t) < 0 ||
            put_number(d, U_LAST_FRAME, frame) < 0)
            taken = -1;
        if (taken > 0 && paces < MOST_PACE) {
            PyObject *number = PyLong_FromLongLong(since);
            PyObject *done = number == NULL ? NULL : PyObject_CallMethodOneArg(pace, str_append, number);

            Py_XDECREF(number);
            Py_XDECREF(done);
            if (done == NULL)
                taken = -1;
        }
        if (taken > 0 && target != Py_None && count_target(target, t, frame) < 0)
            taken = -1;
        if (taken > 0 && read_payload(self, d, key, at, end, length - 8, t, frame) < 0)
            taken = -1;
        if (taken > 0) {
            self->datagrams_taken++;
            self->datagram_bytes += record->wire;
        }
    }
    Py_XDECREF(d);
    Py_XDECREF(key);
    return taken;
}
