/* HTTP/1 as it usually is: a segment that begins with a message, has all of its header, and ends with it or in its body.
 *
 * What is done is what `applications.feed`, `http.segment` and those below them do, in their objects and tables; the
 * comments are there. Errors, logins, chunks and whatever else is rare are left to them before anything was changed.
 */

#include "_usual.h"

#include <string.h>

#define LIMIT 16384
#define MOST_LINES 127 /* behind the first */
#define MOST_WAITING 512
#define MOST_METHODS 64
#define MOST_SERVERS 4096
#define LONGEST_PATH 253
#define LONGEST_HOST 253
#define LONGEST_AGENT 120
#define LONGEST_TYPE 80

typedef struct {
    const char *at;
    Py_ssize_t size; /* -1 when absent */
} Text;

enum { HOST, AGENT, LENGTH, TYPE, CODING, LOGIN, FIELDS };

typedef struct {
    Text first, field[FIELDS];
    int64_t head;     /* bytes of the header with the empty line */
    int64_t body;     /* that are told, -1 when they are not */
    int answer, status;
} Message;

/* What a segment belongs to; NULL or None where there is none yet. */
typedef struct {
    PyObject *app, *part, *talk, *side;
    int from_orig;
} Place;

/* Names of attributes, of keys of a row, and words; those from N_T on are the keys in their order. */
enum {
    N_APP, N_ORIG, N_RESP, N_KIND, N_HTTP, N_NEXT, N_SEEN, N_SERVICE, N_SIDES, N_HEADER, N_BODY_UNTIL, N_WAITING,
    N_REQUESTS, N_RESPONSES, N_TOTAL, N_NAME, N_KEY, N_SERVER_WAIT,
    N_T, N_FRAME, N_RESPONSE_FRAME, N_FLOW, N_METHOD, N_HOST, N_PATH, N_STATUS, N_TTFB, N_RESPONSE_BYTES, N_CONTENT_TYPE,
    N_USER_AGENT, N_PROBE, N_CREDENTIALS, N_ALL, N_ROW = N_ALL - N_T
};
static PyObject *name[N_ALL], *http_service;

int http_setup(void)
{
    static const char *const texts[N_ALL] = {
        "app", "orig", "resp", "kind", "http", "next", "seen", "service", "sides", "header", "body_until", "waiting",
        "requests", "responses", "total", "name", "key", "server_wait",
        "t", "frame", "response_frame", "flow", "method", "host", "path", "status", "ttfb", "response_bytes",
        "content_type", "user_agent", "probe", "credentials",
    };

    for (int i = 0; i < N_ALL; i++)
        if (!(name[i] = PyUnicode_InternFromString(texts[i])))
            return -1;
    http_service = Py_BuildValue("(sds)", "http", 1.0, "payload");
    return http_service == NULL ? -1 : 0;
}

/* ---- reading ---- */

static int is_space(char one)
{
    return one == ' ' || (one >= '\t' && one <= '\r');
}

static Text stripped(const char *at, Py_ssize_t size)
{
    while (size > 0 && is_space(at[size - 1]))
        size--;
    while (size > 0 && is_space(*at))
        at++, size--;
    return (Text){at, size};
}

/* Whether a text is a word of small letters, whatever the size of its own. */
static int is_word(Text text, const char *word)
{
    Py_ssize_t i = 0;

    for (; i < text.size && word[i]; i++) {
        char one = text.at[i];

        if ((one >= 'A' && one <= 'Z' ? one | 0x20 : one) != word[i])
            return 0;
    }
    return i == text.size && !word[i];
}

static int is_digits(Text text)
{
    for (Py_ssize_t i = 0; i < text.size; i++)
        if (text.at[i] < '0' || text.at[i] > '9')
            return 0;
    return text.size > 0;
}

static int64_t number_of(Text text)
{
    int64_t value = 0;

    for (Py_ssize_t i = 0; i < text.size; i++)
        value = 10 * value + (text.at[i] - '0');
    return value;
}

/* Where the header ends that begins at `at`, behind its empty line; NULL when it does not. */
static const char *end_of_header(const char *at, const char *end)
{
    while (end - at >= 4) {
        const char *found = memchr(at, '\r', (size_t)(end - at - 3));

        if (found == NULL)
            return NULL;
        if (!memcmp(found, "\r\n\r\n", 4))
            return found + 4;
        at = found + 1;
    }
    return NULL;
}

/* Whether a request begins here with one of the usual methods; a rarer one is for Python. */
static int is_request(const char *at, Py_ssize_t size)
{
    static const char *const methods[] = {"GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS "};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        Py_ssize_t length = (Py_ssize_t)strlen(methods[i]);

        if (size >= length && !memcmp(at, methods[i], (size_t)length))
            return 1;
    }
    return 0;
}

/* Read the header at the beginning of a segment; 0 when it is not of the usual kind. */
static int read_message(const char *at, Py_ssize_t size, Message *message)
{
    static const char *const names[FIELDS] = {"host",           "user-agent",        "content-length",
                                              "content-type",   "transfer-encoding", "authorization"};
    const char *behind, *end;

    message->answer = size >= 7 && !memcmp(at, "HTTP/1.", 7);
    if ((!message->answer && !is_request(at, size)) || (behind = end_of_header(at, at + size)) == NULL)
        return 0;
    message->head = behind - at;
    end = behind - 4;
    for (int i = 0; i < FIELDS; i++)
        message->field[i].size = -1;
    for (int line = 0; line <= MOST_LINES; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at)), *colon;

        stop = stop == NULL ? end : stop;
        if (!line) {
            message->first = (Text){at, stop - at};
            while (message->first.size && at[message->first.size - 1] == '\r')
                message->first.size--;
        }
        else if ((colon = memchr(at, ':', (size_t)(stop - at))) != NULL) {
            Text field = stripped(at, colon - at);

            for (int i = 0; i < FIELDS; i++)
                if (message->field[i].size < 0 && is_word(field, names[i]))
                    message->field[i] = stripped(colon + 1, stop - colon - 1);
        }
        if (stop == end)
            break;
        at = stop + 1;
    }
    if (message->field[CODING].size >= 0 || message->field[LOGIN].size >= 0)
        return 0;
    Text length = message->field[LENGTH], code = {message->first.at + 9, 3};
    message->body = is_digits(length) && length.size < 16 ? number_of(length) : -1;
    if (!message->answer)
        return 1;
    if (message->first.size < 12 || !is_digits(code))
        return 0;
    message->status = (int)number_of(code);
    return message->status >= 200 && message->status < 400; /* no error, and not one before the answer */
}

/* ---- what Python's objects say ---- */

static int is_http(PyObject *word)
{
    return word == name[N_HTTP] || (PyUnicode_Check(word) && PyUnicode_CompareWithASCIIString(word, "http") == 0);
}

/* Text of a packet as Python's, at most `most` characters; None where it is absent, NULL with an exception. */
static PyObject *text_of(Text text, Py_ssize_t most)
{
    if (text.size < 0)
        return Py_NewRef(Py_None);
    PyObject *decoded = PyUnicode_DecodeUTF8(text.at, text.size, "replace");
    if (decoded != NULL && PyUnicode_GET_LENGTH(decoded) > most)
        Py_SETREF(decoded, PyUnicode_Substring(decoded, 0, most));
    return decoded;
}

/* The side of a conversation that a direction is: a new reference, NULL with an exception set. */
static PyObject *side_of(const Place *place)
{
    PyObject *sides = PyObject_GetAttr(place->talk, name[N_SIDES]), *side = NULL;

    if (sides != NULL && PyTuple_Check(sides) && PyTuple_GET_SIZE(sides) == 2)
        side = Py_NewRef(PyTuple_GET_ITEM(sides, place->from_orig ? 0 : 1));
    else if (sides != NULL)
        PyErr_SetString(PyExc_TypeError, "a conversation has two sides");
    Py_XDECREF(sides);
    return side;
}

/* Find the conversation and the side of it that a segment belongs to, as far as they are there yet.
 *
 * 1 when the segment is the next of HTTP, or the first of all; 0 when it is not; -1 with an exception set.
 */
static int look(const Direction *d, int64_t seq, Place *place)
{
    PyObject *orig = PyObject_GetAttr(d->conn, name[N_ORIG]);

    place->from_orig = orig == (const PyObject *)d;
    Py_XDECREF(orig);
    place->app = orig == NULL ? NULL : PyObject_GetAttr(d->conn, name[N_APP]);
    if (place->app == NULL)
        return -1;
    if (place->app != Py_None) {
        place->part = PyObject_GetAttr(place->app, name[place->from_orig ? N_ORIG : N_RESP]);
        place->talk = place->part == NULL ? NULL : PyObject_GetAttr(place->app, name[N_HTTP]);
        if (place->talk == NULL)
            return -1;
    }
    if (place->part == NULL || place->part == Py_None) {
        if (d->isn == Py_None)
            return 1;
        int64_t isn = PyLong_Check(d->isn) ? PyLong_AsLongLong(d->isn) : -1;
        if (isn < 0)
            return PyErr_Occurred() ? -1 : 0;
        return ((seq - isn - 1) & MASK) >= LIMIT || seq == ((isn + 1) & MASK); /* else it may have been overtaken */
    }
    PyObject *kind = PyObject_GetAttr(place->part, name[N_KIND]);
    int known = kind == NULL ? -1 : is_http(kind) && place->talk != Py_None;
    Py_XDECREF(kind);
    if (known <= 0)
        return known;
    place->side = side_of(place);
    PyObject *header = place->side == NULL ? NULL : PyObject_GetAttr(place->side, name[N_HEADER]);
    PyObject *until = header == NULL ? NULL : PyObject_GetAttr(place->side, name[N_BODY_UNTIL]);
    int next = until == NULL ? -1 : PyBytes_Check(header) && !PyBytes_GET_SIZE(header);
    if (next > 0 && until != Py_None) {
        next = PyLong_Check(until) && PyLong_AsLongLong(until) == seq;
        if (PyErr_Occurred())
            next = -1;
    }
    Py_XDECREF(header);
    Py_XDECREF(until);
    return next;
}

/* Make what is missing of a conversation whose first segment of a direction this is; 0, or -1 with an exception set. */
static int settle(const Direction *d, int64_t seq, int64_t length, Place *place)
{
    if (place->side != NULL)
        return 0;
    if (place->app == Py_None) {
        Py_SETREF(place->app, PyObject_CallNoArgs(call[APP]));
        if (place->app == NULL || PyObject_SetAttr(d->conn, name[N_APP], place->app) < 0)
            return -1;
    }
    if (place->talk == NULL || place->talk == Py_None) {
        Py_XSETREF(place->talk, PyObject_CallNoArgs(call[CONVERSATION]));
        if (place->talk == NULL || PyObject_SetAttr(place->app, name[N_HTTP], place->talk) < 0)
            return -1;
    }
    PyObject *next = PyLong_FromLongLong((seq + length) & MASK);
    Py_XSETREF(place->part, next == NULL ? NULL : PyObject_CallOneArg(call[PAYLOAD], next));
    Py_XDECREF(next);
    if (place->part == NULL || put_attribute(place->part, name[N_SEEN], length) < 0 ||
        PyObject_SetAttr(place->part, name[N_KIND], name[N_HTTP]) < 0 ||
        PyObject_SetAttr(place->app, name[place->from_orig ? N_ORIG : N_RESP], place->part) < 0)
        return -1;
    PyObject *service = PyObject_GetAttr(d->conn, name[N_SERVICE]);
    int known = service == NULL ? -1
                                : PyTuple_Check(service) && PyTuple_GET_SIZE(service) &&
                                      is_http(PyTuple_GET_ITEM(service, 0));
    Py_XDECREF(service);
    if (known < 0 || (!known && PyObject_SetAttr(d->conn, name[N_SERVICE], http_service) < 0))
        return -1;
    place->side = side_of(place);
    return place->side == NULL ? -1 : 0;
}

/* ---- what becomes of a message ---- */

/* Whether a request can be taken here; a new reference to its row, NULL without an exception when it cannot. */
static PyObject *request_row(const Direction *d, const Message *message, int64_t t, int64_t frame)
{
    const char *begin = message->first.at, *end = begin + message->first.size;
    const char *blank = memchr(begin, ' ', (size_t)(end - begin)), *path = blank + 1; /* a method ends with one */
    const char *stop = memchr(path, ' ', (size_t)(end - path)), *query;
    Text host = message->field[HOST];
    char small[LONGEST_HOST];
    Py_ssize_t size = 0;

    stop = stop == NULL ? end : stop;
    query = memchr(path, '?', (size_t)(stop - path));
    stop = query == NULL ? stop : query;
    if (host.size > LONGEST_HOST)
        return NULL;
    for (; size < host.size && host.at[size] != ':'; size++) {
        char one = host.at[size];

        if (one & 0x80)
            return NULL;
        small[size] = (char)(one >= 'A' && one <= 'Z' ? one | 0x20 : one);
    }
    PyObject *row = PyDict_New(), *known = PyUnicode_FromStringAndSize(small, size);
    PyObject *probe = known == NULL ? NULL : PyDict_GetItemWithError(call[PROBES], known);
    PyObject *values[N_ROW] = {
        PyLong_FromLongLong(t),
        PyLong_FromLongLong(frame),
        Py_NewRef(Py_None),
        Py_NewRef(d->conn),
        PyUnicode_FromStringAndSize(begin, blank - begin),
        text_of(host, LONGEST_HOST),
        text_of((Text){path, stop - path}, LONGEST_PATH),
        Py_NewRef(Py_None),
        Py_NewRef(Py_None),
        Py_NewRef(Py_None),
        Py_NewRef(Py_None),
        text_of(message->field[AGENT], LONGEST_AGENT),
        Py_NewRef(probe == NULL || host.size < 0 ? Py_None : probe),
        Py_NewRef(Py_False),
    };
    for (int i = 0; i < N_ROW; i++) {
        if (row != NULL && (values[i] == NULL || PyDict_SetItem(row, name[N_T + i], values[i]) < 0))
            Py_CLEAR(row);
        Py_XDECREF(values[i]);
    }
    Py_XDECREF(known);
    if (PyErr_Occurred())
        Py_CLEAR(row);
    return row;
}

/* The list of requests that wait for their answers: a new reference; NULL with an exception set. */
static PyObject *waiting_of(PyObject *talk)
{
    PyObject *waiting = PyObject_GetAttr(talk, name[N_WAITING]);

    if (waiting != NULL && !PyList_CheckExact(waiting)) {
        PyErr_SetString(PyExc_TypeError, "what waits for an answer is no list");
        Py_CLEAR(waiting);
    }
    return waiting;
}

/* Put a request into the tables; 0, or -1 with an exception set. */
static int put_request(Registers *tables, const Direction *d, const Place *place, PyObject *row)
{
    PyObject *rows = tables->held[HTTP_ROWS], *host = PyDict_GetItemWithError(row, name[N_HOST]);
    PyObject *method = PyDict_GetItemWithError(row, name[N_METHOD]), *waiting = waiting_of(place->talk);
    int done = -1;

    if (waiting != NULL && host != NULL && method != NULL && PyList_Append(waiting, row) == 0 &&
        add_attribute(tables->held[HTTP_TABLE], name[N_TOTAL], 1) == 0 &&
        add_attribute(tables->held[HTTP_TABLE], name[N_REQUESTS], 1) == 0 &&
        add_attribute(place->talk, name[N_REQUESTS], 1) == 0 &&
        count_key(tables->held[HTTP_METHODS], method, MOST_METHODS) == 0)
        done = PyList_GET_SIZE(rows) < tables->most[MOST_ROWS] ? PyList_Append(rows, row) : 0;
    Py_XDECREF(waiting);
    if (done == 0 && host != Py_None) {
        PyObject *known = PyObject_GetAttr(d->conn, name[N_NAME]);

        done = known == NULL || (known == Py_None && PyObject_SetAttr(d->conn, name[N_NAME], host) < 0) ||
                       count_key(tables->held[HTTP_HOSTS], host, tables->most[MOST_NAMES]) < 0
                   ? -1
                   : 0;
        Py_XDECREF(known);
    }
    return done;
}

/* The request that an answer is for, if it can be taken here: a new reference; NULL without an exception if not. */
static PyObject *answered_row(const Registers *tables, PyObject *talk, int64_t t, int64_t *waited, int *is_head)
{
    PyObject *waiting = talk == NULL || talk == Py_None ? NULL : waiting_of(talk);
    PyObject *row = waiting == NULL || !PyList_GET_SIZE(waiting) ? NULL : Py_NewRef(PyList_GET_ITEM(waiting, 0));

    Py_XDECREF(waiting);
    if (row == NULL || !PyDict_CheckExact(row)) {
        Py_CLEAR(row);
        return NULL;
    }
    PyObject *asked = PyDict_GetItemWithError(row, name[N_T]), *login = PyDict_GetItemWithError(row, name[N_CREDENTIALS]);
    PyObject *method = PyDict_GetItemWithError(row, name[N_METHOD]);
    int usual = asked != NULL && PyLong_Check(asked) && login == Py_False && method != NULL && PyUnicode_Check(method);
    int64_t before = usual ? PyLong_AsLongLong(asked) : 0;
    usual = usual && !PyErr_Occurred() && before >= 0 && t >= before;
    *waited = usual ? t - before : 0;
    *is_head = usual && PyUnicode_CompareWithASCIIString(method, "HEAD") == 0;
    if (!usual || *waited > EXACT || (double)*waited > tables->slow_http_s * 1e9)
        Py_CLEAR(row);
    return row;
}

/* Count an answer that is no error at its server; 0, or -1 with an exception set. */
static int count_server(Registers *tables, const Direction *d)
{
    PyObject *key = PyObject_GetAttr(d->conn, name[N_KEY]), *errors = tables->held[HTTP_ERRORS], *server = NULL;
    PyObject *row = NULL;
    int done = -1;

    if (key != NULL && PyBytes_Check(key) && PyBytes_GET_SIZE(key) >= 12) {
        int wide = PyBytes_GET_SIZE(key) >= 36;

        server = PyBytes_FromStringAndSize(PyBytes_AS_STRING(key) + (wide ? 16 : 4), wide ? 16 : 4);
        row = server == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(errors, server));
        if (row != NULL)
            done = PyList_CheckExact(row) && PyList_GET_SIZE(row) ? add_number(row, 0, 1) : -1;
        else if (!PyErr_Occurred() && PyDict_GET_SIZE(errors) >= MOST_SERVERS)
            done = 0;
        else if (!PyErr_Occurred()) {
            row = Py_BuildValue("[iii[]Oii]", 1, 0, 0, d->conn, 0, 0);
            done = row == NULL ? -1 : PyDict_SetItem(errors, server, row);
        }
    }
    Py_XDECREF(key);
    Py_XDECREF(server);
    Py_XDECREF(row);
    return done;
}

/* Write an answer into the row of its request and into the tables; 0, or -1 with an exception set. */
static int put_answer(Unusual *self, const Direction *d, const Place *place, const Message *message, PyObject *row,
                      int64_t waited, int64_t frame)
{
    Registers *tables = self->registers;
    PyObject *status = PyLong_FromLong(message->status), *number = PyLong_FromLongLong(frame);
    PyObject *elapsed = PyLong_FromLongLong(waited), *type = text_of(message->field[TYPE], LONGEST_TYPE);
    PyObject *size = message->body < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(message->body);
    PyObject *waiting = waiting_of(place->talk);
    int done = -1;

    if (status && number && elapsed && type && size && waiting && PyList_SetSlice(waiting, 0, 1, NULL) == 0 &&
        add_attribute(tables->held[HTTP_TABLE], name[N_RESPONSES], 1) == 0 &&
        add_attribute(place->talk, name[N_RESPONSES], 1) == 0 &&
        count_key(tables->held[HTTP_STATUSES], status, PY_SSIZE_T_MAX) == 0 && count_server(tables, d) == 0 &&
        PyDict_SetItem(row, name[N_STATUS], status) == 0 && PyDict_SetItem(row, name[N_RESPONSE_FRAME], number) == 0 &&
        PyDict_SetItem(row, name[N_RESPONSE_BYTES], size) == 0 &&
        PyDict_SetItem(row, name[N_CONTENT_TYPE], type) == 0 && PyDict_SetItem(row, name[N_TTFB], elapsed) == 0) {
        PyObject *told = PyObject_CallMethodObjArgs(self->st, name[N_SERVER_WAIT], d->conn, elapsed, number, NULL);

        done = told == NULL ? -1 : 0;
        Py_XDECREF(told);
    }
    Py_XDECREF(status);
    Py_XDECREF(number);
    Py_XDECREF(elapsed);
    Py_XDECREF(type);
    Py_XDECREF(size);
    Py_XDECREF(waiting);
    return done;
}

/* Say from where on the direction is of interest again: behind a body, at once, or at the next message's first byte. */
static int want(Direction *d, const Place *place, int64_t until, int known, char first)
{
    if (!known) {
        d->app = (unsigned char)first;
        return PyObject_SetAttr(place->side, name[N_BODY_UNTIL], Py_None);
    }
    d->app = until < 0 ? 1 : 2;
    if (until < 0)
        return PyObject_SetAttr(place->side, name[N_BODY_UNTIL], Py_None);
    d->app_next = until;
    return put_attribute(place->side, name[N_BODY_UNTIL], until);
}

int http_take(Unusual *self, Direction *d, int64_t position, int64_t end, int64_t seq, int64_t length, int64_t t,
              int64_t frame)
{
    const char *data = (const char *)self->view.buf + position;
    Message message;
    Place place = {NULL, NULL, NULL, NULL, 0};
    PyObject *row = NULL;
    int64_t waited = 0;
    int taken, is_head = 0;

    if (length <= 0 || length > LIMIT || position < 0 || end - position < length ||
        !read_message(data, (Py_ssize_t)length, &message))
        return 0;
    taken = look(d, seq, &place);
    if (taken > 0) {
        PyObject *waiting = place.talk == NULL || place.talk == Py_None ? NULL : waiting_of(place.talk);
        int full = waiting != NULL && PyList_GET_SIZE(waiting) >= MOST_WAITING;

        Py_XDECREF(waiting);
        if (!PyErr_Occurred() && message.answer)
            row = answered_row(self->registers, place.talk, t, &waited, &is_head);
        else if (!PyErr_Occurred() && !full)
            row = request_row(d, &message, t, frame);
        taken = row != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
    }
    int known = 1;
    int64_t body = message.body < 0 ? 0 : message.body, left = length - message.head;
    if (message.answer && (is_head || message.status == 204 || message.status == 304))
        body = 0;
    else if (message.answer)
        known = message.body >= 0;
    if (taken > 0 && known && body < left)
        taken = 0; /* another message follows in this segment */
    if (taken > 0) {
        int64_t until = body > left ? (seq + message.head + body) & MASK : -1;

        if (settle(d, seq, length, &place) < 0 ||
            (message.answer ? put_answer(self, d, &place, &message, row, waited, frame)
                            : put_request(self->registers, d, &place, row)) < 0 ||
            want(d, &place, until, known, *data) < 0)
            taken = -1;
    }
    Py_XDECREF(row);
    Py_XDECREF(place.app);
    Py_XDECREF(place.part);
    Py_XDECREF(place.talk);
    Py_XDECREF(place.side);
    return taken;
}
