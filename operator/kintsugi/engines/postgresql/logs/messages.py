"""What PostgreSQL says itself: the formats of its messages whose words are kept. Of all others no word is.

An application writes into the same log, in words of its own (RAISE, plpy.log, elog of an extension), and nothing tells
these apart for certain: with log_error_verbosity = terse there is no CONTEXT, and PL/Tcl never gives one. So it is the
other way round: words stay only where all of a message's first line is one of the server's own formats.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 4096
"""Characters; the server says nothing longer in its own words."""

_HOLES: Final = {
    "%d": r"(?:[-+]?\d[\w.:/+-]*|[0-9A-F]{1,8}/[0-9A-F]{1,8})",  # a number, a time of day, a place in the WAL
    "%q": r'"[^"]*"',  # in double quotes; `templates` decides whether it stays
    "%n": r"[^\s\"':;,=]+",  # one word
    "%t": r"[\w ,()\[\]/]+",  # a lock
    "%w": r"[a-z][a-z0-9_ ,-]*",  # small words
    "%m": r"[A-Z][A-Za-z/ ]{2,60}",  # what the operating system says
    "%s": r"(.*)",  # anything; shown as ?
    "%*": r"[^\n]*",  # figures, to the end of the line
}
_SIGNS: Final = {**_HOLES, "{": "(?:", "|": "|", "}": ")"}  # {this|or that}
_LAST_QUOTED: Final = '".*"'
"""The last one may hold quotes and further lines: it is a value."""

_FORMATS: Final = r"""
# Start, stop, settings
starting PostgreSQL %d on %*
starting PostgreSQL %d (%s) on %*
listening on {IPv4|IPv6} address %q, port %d
listening on Unix socket %q
database system {is ready to accept connections|is ready to accept read-only connections|is shut down}
database system is ready to accept read only connections
database system was {shut down|shut down in recovery|interrupted; last known up} at %d %d %n
database system was interrupted while in recovery at {|log time }%d %d %n
database system shutdown was interrupted; last known up at %d %d %n
database system was not properly shut down; automatic recovery in progress
abnormal database system shutdown
the database system is {starting up|shutting down|in recovery mode|not accepting connections}
the database system is not yet accepting connections
received {smart|fast|immediate} shutdown request
received SIGHUP, reloading configuration files
received promote request
aborting any active transactions
shutting down
ending log output to stderr
redirecting log output to logging collector process
parameter %q changed to %q
parameter %q removed from configuration file, reset to default
parameter %q cannot be changed{| now| without restarting the server}
parameter %q cannot be set after connection start
configuration file %q contains errors{|; no changes were applied|; unaffected changes were applied}
background worker %q (PID %d) exited with exit code %d
background worker %q (PID %d) was terminated by signal %d: %m
{server|startup|checkpointer|archiver|autovacuum worker|WAL writer} process (PID %d) exited with exit code %d
{server|startup|checkpointer|archiver|autovacuum worker|WAL writer} process (PID %d) was terminated by signal %d: %m
WAL receiver process (PID %d) exited with exit code %d
{client backend|autovacuum worker|parallel worker} (PID %d) exited with exit code %d
{client backend|autovacuum worker|parallel worker} (PID %d) was terminated by signal %d: %m
terminating any other active server processes
all server processes terminated; reinitializing
still waiting for backend with PID %d to accept ProcSignalBarrier
# Checkpoints, WAL, archive
{checkpoint|restartpoint} starting: {|%w}
{checkpoint|restartpoint} complete: wrote %d buffers%*
checkpoints are occurring too frequently (%d {second|seconds} apart)
checkpoint request failed
WAL redo at %d for %s
requested WAL segment %n has already been removed
could not write to log {segment|file} %n at offset %d, length %d: %m
archive command failed with exit code %d
archive command was terminated by signal %d: %m
archiving write-ahead log file %q failed too many times, will try again later
restored log file %q from archive
all required WAL segments have been archived
base backup done, waiting for required WAL segments to be archived
# Recovery
redo {starts at %d|done at %d%*|is not required}
redo in progress, elapsed time: %d s, current LSN: %d
last completed transaction was at log time %d %d%n
selected new timeline ID: %d
archive recovery complete
entering standby mode
starting {archive recovery|backup recovery with redo LSN %*|point-in-time recovery to %s}
consistent recovery state reached at %d
recovery stopping {before|after} %s
recovery has paused
recovery {still waiting|finished waiting} after %d ms: recovery conflict on %w
pausing at the end of recovery
crash recovery starts in timeline %d and has target timeline %d
invalid record length at %d: {wanted|expected at least} %d, got %d
promotion {is not possible because of insufficient parameter settings|has been requested}
# Replication
started streaming WAL from primary at %d on timeline %d
restarted WAL streaming at %d on timeline %d
replication terminated by primary server
waiting for WAL to become available at %d
new timeline %d forked off current database system timeline %d before current recovery point %d
fetching timeline history file for timeline %d from primary server
standby %q is now {a synchronous standby with priority %d|a candidate for quorum synchronous standby}
terminating walsender process {after promotion|due to replication timeout}
terminating walreceiver {due to timeout|process due to administrator command}
terminating logical replication worker due to {administrator command|timeout}
could not connect to the primary server: %s
could not receive data from WAL stream: %s
could not send {data to WAL stream|end-of-streaming message to primary}: %s
logical decoding found {consistent|initial consistent|initial starting} point at %d
starting logical decoding for slot %q
logical replication apply worker for subscription %q has started
logical replication apply worker for subscription %q will {stop|restart} because %w
logical replication table synchronization worker for subscription %q, table %q has {started|finished}
invalidating {slot|obsolete replication slot} %q{| because its restart_lsn %d exceeds max_slot_wal_keep_size}
terminating process %d to release replication slot %q
replication slot %q {is active for PID %d|already exists|does not exist}
all replication slots are in use
received replication command: %s
number of requested standby connections exceeds max_wal_senders (currently %d)
cannot execute %n in a read-only transaction
cannot execute %n %n in a read-only transaction
cannot execute %n{| %n} during recovery
canceling wait for synchronous replication due to user request
canceling the wait for synchronous replication and terminating connection due to administrator command
recovery is {in progress|not in progress}
# Connections
connection received: host=%s
connection authorized: %s
connection authenticated: {identity|user}=%q method=%n (%s)
connection ready: setup total=%d ms, fork=%d ms, authentication=%d ms
replication connection authorized: %s
disconnection: session time: %d user=%s
could not {receive data from|send data to} client: %m
could not accept SSL connection: %m
could not accept SSL connection: {EOF detected|%s}
unexpected EOF on client connection with an open transaction
unexpected EOF on {client|standby} connection
connection to client lost
incomplete startup packet
invalid length of startup packet
unsupported frontend protocol %d: server supports %d to %d
there is no client connection
sorry, too many clients already
too many connections for {role|database} %q
remaining connection slots are reserved for non-replication superuser connections
remaining connection slots are reserved for roles with {the SUPERUSER attribute|privileges of the %q role}
terminating connection due to {administrator command|conflict with recovery|idle-in-transaction timeout}
terminating connection due to {idle-session timeout|transaction timeout|immediate shutdown command|unexpected %s}
terminating connection because of {crash of another server process|unexpected SIGQUIT signal}
terminating connection because protocol synchronization was lost
terminating autovacuum process due to administrator command
terminating background worker %q due to administrator command
PID %d in cancel request did not match any process
wrong key in cancel request for process %d
expected {SASL|password|SSPI|GSS} response, got message type %d
canceling authentication due to timeout
{password|Peer|Ident|MD5|GSSAPI|SSPI|PAM|BSD|LDAP|RADIUS|certificate|SCRAM|"trust"} authentication failed for user %q
no pg_hba.conf entry for host %q, user %q, database %q{|, {no|SSL|GSS} encryption|, SSL on|, SSL off}
no pg_hba.conf entry for replication connection from host %q, user %q{|, {no|SSL|GSS} encryption|, SSL on|, SSL off}
pg_hba.conf rejects {connection|replication connection} for host %q, user %q, %s
role %q {does not exist|is not permitted to log in|already exists}
database %q {does not exist|already exists|is not currently accepting connections|is being accessed by other users}
provided user name (%s) and authenticated user name (%s) do not match
LDAP login failed for user %q on server %q: %s
# Locks, waits, cancelled statements
process %d {still waiting for|acquired} %n on %t after %d ms
process %d detected deadlock while waiting for %n on %t after %d ms
process %d avoided deadlock for %n on %t by rearranging queue order after %d ms
deadlock detected
could not serialize access
could not serialize access due to {concurrent update|concurrent delete|read/write dependencies among transactions}
could not obtain lock on {relation|row in relation} %q
canceling statement due to {lock timeout|statement timeout|user request|conflict with recovery}
canceling autovacuum task
current transaction is aborted, commands ignored until end of transaction block
tuple to be {updated|deleted|locked|updated or deleted} was already {modified|moved} %w
lock not available
there is {no|already a} transaction in progress
# Vacuum, analyze
automatic {|aggressive }{vacuum|analyze} {|to prevent wraparound }of table %q{|: index scans: %d}
automatic aggressive vacuum to prevent wraparound of table %q: index scans: %d
finished {|aggressively }vacuuming %q: index scans: %d
skipping {vacuum|analyze} of %q --- {lock not available|relation no longer exists}
skipping %q --- %w
autovacuum: dropping orphan temp table %q
autovacuum worker took too long to start; canceled
database %q must be vacuumed within %d transactions
database is not accepting commands to avoid wraparound data loss in database %q
database is not accepting commands that {generate|assign} new %n{| IDs} to avoid wraparound data loss in database %q
oldest {xmin|multixact} is far in the past
# Resources
temporary file: path %q, size %d
temporary file size exceeds temp_file_limit (%d)
out of memory
out of shared memory
stack depth limit exceeded
could not {resize|create} shared memory segment %q{| to %d bytes}: %m
could not {extend|write|read|fsync|open|access|create|rename|remove|stat|close|truncate} file %q: %m
could not {open|create} {file|temporary file|directory} %q{| for reading| for writing}: %m
could not {read|write} block %d in file %q: %m
could not read block %d in file %q: read only %d of %d bytes
could not extend file %q: wrote only %d of %d bytes at block %d
could not write {to|to hash-join|to tuplestore|block %d of} temporary file: %m
could not fork {new process for connection|autovacuum worker process|worker process|process}: %m
invalid page in block %d of relation %n{|; zeroing out page}
page verification failed, calculated checksum %d but expected %d
invalid memory alloc request size %d
using stale statistics instead of current ones because stats collector is not responding
out of background worker slots
too many {background workers|dynamic shared memory segments}
duration: %d ms
# Constraints and values
duplicate key value violates unique constraint %q
conflicting key value violates exclusion constraint %q
insert or update on table %q violates foreign key constraint %q
update or delete on table %q violates {|RESTRICT setting of }foreign key constraint %q on table %q
null value in column %q of relation %q violates not-null constraint
null value in column %q violates not-null constraint
new row for relation %q violates {check|partition} constraint %q
new row violates check option for view %q
new row violates row-level security policy {|%q }for table %q
no partition of relation %q found for row
division by zero
{integer|bigint|smallint|timestamp|interval|date|numeric} out of range
numeric field overflow
value too long for type character{| varying}(%d)
value %q is out of range for type %w
value out of range: {overflow|underflow}
invalid input syntax for type %w
invalid input syntax for type %w: %q
invalid input value for enum %n: %q
invalid byte sequence for encoding %q: %d{| %d}{| %d}{| %d}
invalid value for parameter %q: {%q|%d}
date/time field value out of range: %q
malformed {array|range|record} literal: %q
more than one row returned by a subquery used as an expression
cannot insert a non-DEFAULT value into column %q
reached {maximum|minimum} value of sequence %q
missing data for column %q
extra data after last expected column
duplicate JSON object key value: %s
invalid normalization form: %s
%s is not a valid encoding name
# What statements name
permission denied for {table|view|sequence|schema|database|function|procedure|language|type|column|materialized view} %n
permission denied for {foreign table|foreign server|large object|tablespace|publication|routine|aggregate|index} %n
permission denied for database %q
permission denied to {create|set|drop|alter|copy|finish|reassign} {|role |parameter |extension |database }{%q|%w}
must be owner of {table|view|sequence|schema|database|function|index|type|materialized view} %n
must be superuser{| %w}
{relation|schema|function|view|index|table|sequence|extension|type} %q already exists{|, skipping}
{relation|schema|table|view|index|sequence|extension|type} %q does not exist{|, skipping}
{prepared statement|cursor|portal|savepoint|tablespace|collation} %q does not exist
{publication|subscription|trigger|policy|constraint} %q does not exist{|, skipping}
column %q of relation %q {does not exist|already exists}{|, skipping}
column %q {does not exist|specified more than once}
column %q is of type %w but expression is of type %w
column %q must appear in the GROUP BY clause or be used in an aggregate function
column %n must appear in the GROUP BY clause or be used in an aggregate function
column %s does not exist
column reference %q is ambiguous
column notation .%s applied to type %n, which is not a composite type
{function|procedure|aggregate|text search configuration} %s does not exist
{function|procedure|operator} %s is not unique
operator does not exist: %s
{publication|publications} %s {does|do} not exist on the publisher
missing FROM-clause entry for table %q
invalid reference to FROM-clause entry for table %q
table name %q specified more than once
subquery in FROM must have an alias
syntax error at end of input
syntax error at or near %q
unterminated {quoted string|quoted identifier|dollar-quoted string} at or near %q
improper qualified name (too many dotted names): %s
cross-database references are not implemented: %s
invalid command-line argument for server process: %s
cached plan must not change result type
prepared statement %q already exists
bind message supplies %d parameters, but prepared statement %q requires %d
there is no parameter %n
unrecognized {parameter|configuration parameter} %q
unrecognized configuration parameter %q
extension %q {is not available|already exists}
cannot drop %s because other objects depend on it
there is no unique or exclusion constraint matching the ON CONFLICT specification
ON CONFLICT DO UPDATE command cannot affect row a second time
cannot {drop|alter|truncate} table %q because it is being used by active queries in this session
cannot affect row a second time
# Extensions
cron job %d {completed|COMMAND completed}: %s
cron job %d {connection failed|job startup timeout|%s}
pg_cron scheduler {started|shutting down}
"""


def _compiled() -> dict[str, re.Pattern[str]]:
    """By their first word: most messages are then told with a handful of formats."""
    found: dict[str, list[str]] = {}
    for line in _FORMATS.strip().splitlines():
        if not line.startswith("#"):
            first = line.split(" ", 1)[0]
            found.setdefault("" if re.search("[%{]", first) else first, []).append(_regex(line))
    return {first: re.compile(rf"(?:{'|'.join(every)})(?:\n.*)?\Z", re.S) for first, every in found.items()}


def _regex(line: str) -> str:
    parts = [_SIGNS.get(part) or re.escape(part) for part in re.split(r"(%[a-z*]|[{|}])", line)]
    if _HOLES["%q"] in parts:
        last = len(parts) - 1 - parts[::-1].index(_HOLES["%q"])
        parts[last] = _LAST_QUOTED
    return "".join(parts)


_KNOWN: Final = _compiled()


def known(message: str) -> str | None:
    """A message of the server's own, with ? for what may be anything; None when it may be somebody else's."""
    if len(message) > LONGEST:
        return None
    for first in (message.split(" ", 1)[0].split("\n", 1)[0], ""):
        pattern = _KNOWN.get(first)
        if pattern and (found := pattern.match(message)):
            return _masked(message, found)
    return None


def _masked(message: str, found: re.Match[str]) -> str:
    spans = sorted(found.span(group) for group in range(1, found.re.groups + 1) if found.start(group) >= 0)
    for start, end in reversed(spans):
        message = f"{message[:start]}?{message[end:]}"
    return message
