-- The tables and functions of one schema. {schema} is its quoted name, {channel} the name of its notifications.
--
-- A row of `tasks` is a task's entry (the broker's half: state … reason) and its record (the storage's half:
-- status … owner). With both in one row a claim or a settle is one update. Where only one of them is
-- here, `state` or `status` is NULL.
--
-- Text that may hold anything (arguments, results, tracebacks, unique keys, owners) is kept as JSON: PostgreSQL's text
-- holds no NUL, and JSON writes it as six plain characters. Times are Unix seconds by this server's clock.

CREATE TABLE {schema}.meta (version integer NOT NULL);

CREATE TABLE {schema}.apps (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    epoch_base bigint NOT NULL DEFAULT 0,
    exclusive_owner text,
    exclusive_until float8
);

CREATE SEQUENCE {schema}.epochs;
CREATE SEQUENCE {schema}.versions;

CREATE TABLE {schema}.tasks (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app integer NOT NULL,
    state smallint,  -- 0 ready, 1 delayed, 2 leased, 3 buried
    entry_queue text COLLATE "C", entry_priority smallint, due_at float8, pushed_at float8,
    entry_epoch bigint, entry_owner text, entry_deliveries integer, restored boolean, lease_until float8, reason text,
    {record}  -- status: 0 new, 1 process, 2 success, 3 error, 4 cancel
);
CREATE UNIQUE INDEX task_uuid ON {schema}.tasks (uuid, app);
CREATE INDEX task_ready ON {schema}.tasks (app, entry_queue, entry_priority, seq) WHERE state = 0;
CREATE INDEX task_delayed ON {schema}.tasks (app, due_at) WHERE state = 1;
CREATE INDEX task_leased ON {schema}.tasks (app, lease_until) WHERE state = 2;
CREATE INDEX task_buried ON {schema}.tasks (app, seq) WHERE state = 3;
CREATE INDEX task_open ON {schema}.tasks (app, seq) WHERE status <= 1;
CREATE UNIQUE INDEX task_unique ON {schema}.tasks (app, unique_key) WHERE unique_key IS NOT NULL AND status <= 1;
CREATE INDEX task_dead ON {schema}.tasks (app, finished_at, seq) WHERE dead;
CREATE INDEX task_expiring ON {schema}.tasks (app, expires_at) WHERE status >= 2;

CREATE TABLE {schema}.items (
    app integer NOT NULL, uuid uuid NOT NULL, number integer NOT NULL, value text NOT NULL,
    PRIMARY KEY (app, uuid, number)
);

CREATE TABLE {schema}.config (
    app integer NOT NULL, name text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
    value text NOT NULL, version bigint NOT NULL, expires_at float8,
    PRIMARY KEY (app, name, key)
);

CREATE FUNCTION {schema}.moment() RETURNS float8 LANGUAGE sql
    RETURN extract(epoch FROM clock_timestamp())::float8;

-- A batch, in the order in which its rows are locked: two processes that want the same rows then wait for each other
-- in one direction only. ROWS 1 makes the plan look each item up by its uuid, however small the table was when the
-- plan was made. (Conditions on the status are written as `status + 0 = 1` where the index of open records must not
-- come into question.)
CREATE FUNCTION {schema}.items(p_batch json) RETURNS TABLE (
    n integer, uuid uuid, epoch bigint, owner text, deliveries integer, status smallint, delay float8, back integer,
    lease float8, reason text, expires_at float8, c jsonb
) LANGUAGE sql ROWS 1 AS $$
    SELECT * FROM json_to_recordset(p_batch) AS r (
        n integer, uuid uuid, epoch bigint, owner text, deliveries integer, status smallint, delay float8,
        back integer, lease float8, reason text, expires_at float8, c jsonb)
    ORDER BY uuid
$$;

-- --- The broker's half --------------------------------------------------------------------------------------

-- Sees to it that the next claim gets an epoch above this one. Epochs are base + sequence: claims draw them
-- without waiting for each other, and `flush` touches neither.
CREATE FUNCTION {schema}.raise_epochs(p_app integer, p_above bigint) RETURNS void LANGUAGE plpgsql {settings} AS $$
DECLARE
    drawn bigint := (SELECT last_value - 1 FROM epochs);
BEGIN
    UPDATE apps SET epoch_base = p_above - drawn WHERE id = p_app AND epoch_base + drawn < p_above;
END $$;

-- A hint for those who wait: `w` there is ready work, `d` delayed work.
CREATE FUNCTION {schema}.tell_work(p_app integer, p_ready boolean) RETURNS void LANGUAGE sql
    RETURN pg_notify({channel}, p_app || CASE WHEN p_ready THEN ' w' ELSE ' d' END);

-- Tells those who wait for these tasks that they have ended; a payload is at most 8000 bytes.
CREATE FUNCTION {schema}.tell_ended(p_app integer, p_uuids uuid[]) RETURNS void LANGUAGE sql {settings} AS $$
    SELECT pg_notify({channel}, p_app || ' s ' || string_agg(ended.uuid::text, ','))
    FROM unnest(p_uuids) WITH ORDINALITY AS ended (uuid, n) GROUP BY n / 200
$$;

CREATE FUNCTION {schema}.push_entries(p_app integer, p_batch json, p_above bigint) RETURNS SETOF uuid
LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
BEGIN
    PERFORM raise_epochs(p_app, p_above);
    RETURN QUERY
        INSERT INTO tasks AS t (
            app, uuid, state, entry_queue, entry_priority, due_at, pushed_at, entry_epoch, entry_owner,
            entry_deliveries, restored
        )
        SELECT p_app, r.uuid, (r.due_at > now)::integer, r.queue, r.priority, r.due_at, r.due_at, 0, '""', 0, false
        FROM json_to_recordset(p_batch) AS r (uuid uuid, queue text, priority smallint, due_at float8)
        ON CONFLICT (uuid, app) DO UPDATE SET
            state = excluded.state, entry_queue = excluded.entry_queue, entry_priority = excluded.entry_priority,
            due_at = excluded.due_at, pushed_at = excluded.pushed_at, entry_epoch = 0, entry_owner = '""',
            entry_deliveries = 0, restored = false
        WHERE t.state IS NULL
        RETURNING t.uuid;
    PERFORM tell_work(p_app, every(r.due_at <= now))
    FROM json_to_recordset(p_batch) AS r (due_at float8);
END $$;

-- Locks up to n ready entries, queue by queue, each by priority and age. What others hold locked is theirs.
CREATE FUNCTION {schema}.due_entries(p_app integer, p_n integer, p_queues text[], p_now float8) RETURNS bigint[]
LANGUAGE plpgsql {settings} AS $$
DECLARE
    found bigint[] := ARRAY[]::bigint[];
    name text;
BEGIN
    UPDATE tasks SET state = 0 WHERE seq = ANY (ARRAY(
        SELECT seq FROM tasks WHERE app = p_app AND state = 1 AND due_at <= p_now
        ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
    ));
    FOREACH name IN ARRAY p_queues LOOP
        found := found || ARRAY(
            SELECT seq FROM tasks WHERE app = p_app AND entry_queue = name AND state = 0
            ORDER BY entry_priority, seq LIMIT p_n - cardinality(found) FOR UPDATE SKIP LOCKED
        );
        EXIT WHEN cardinality(found) >= p_n;
    END LOOP;
    RETURN found;
END $$;

CREATE FUNCTION {schema}.claim_entries(
    p_app integer, p_n integer, p_queues text[], p_owner text, p_lease float8
) RETURNS TABLE (
    r_uuid uuid, r_epoch bigint, r_deliveries integer, r_restored boolean, r_queue text, r_priority smallint,
    r_pushed_at float8
) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    due bigint[] := due_entries(p_app, p_n, p_queues, now);
    base bigint := (SELECT epoch_base FROM apps WHERE id = p_app);
BEGIN
    RETURN QUERY WITH taken AS (
        UPDATE tasks t SET
            state = 2, entry_epoch = base + nextval('epochs'), entry_owner = p_owner,
            entry_deliveries = t.entry_deliveries + 1, lease_until = now + p_lease
        WHERE t.seq = ANY (due)
        RETURNING t.*
    )
    SELECT uuid, entry_epoch, entry_deliveries, restored, entry_queue, entry_priority, pushed_at FROM taken
    ORDER BY array_position(p_queues, entry_queue), entry_priority, seq;
END $$;

-- --- The storage's half -------------------------------------------------------------------------------------

-- Inserts records, with their entries if p_push; gives those that were new.
CREATE FUNCTION {schema}.insert_tasks(p_app integer, p_batch json, p_push boolean, p_now float8) RETURNS SETOF uuid
LANGUAGE sql {settings} AS $$
    INSERT INTO tasks (
        app, state, entry_queue, entry_priority, due_at, pushed_at, entry_epoch, entry_owner, entry_deliveries,
        restored, {columns}
    )
    SELECT
        p_app, CASE WHEN p_push THEN (r.available_at > p_now)::integer END, r.queue, r.priority, r.available_at,
        r.available_at, 0, '""', 0, false, {r_columns}
    FROM json_to_recordset(p_batch) AS r ({types})
    ON CONFLICT DO NOTHING
    RETURNING uuid
$$;

CREATE FUNCTION {schema}.waiting_room(p_app integer, p_queue text, p_max integer) RETURNS integer
LANGUAGE sql {settings} AS $$
    SELECT p_max
        - (SELECT count(*) FROM (
            SELECT 1 FROM tasks WHERE app = p_app AND entry_queue = p_queue AND state = 0 LIMIT p_max) ready)::integer
        - (SELECT count(*) FROM (
            SELECT 1 FROM tasks WHERE app = p_app AND entry_queue = p_queue AND state = 1 LIMIT p_max) later)::integer
$$;

-- Adds records, with their entries if p_push. No row comes back when all were added; else one for each item of
-- the batch, in its order. No uuid is in the batch twice.
CREATE FUNCTION {schema}.add_tasks(
    p_app integer, p_batch json, p_push boolean, p_max_queue integer, p_above bigint
) RETURNS TABLE (kind text, standing uuid) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    added uuid[] := ARRAY[]::uuid[];
    room jsonb := '{}';
    item record;
    present record;
BEGIN
    IF p_push THEN
        PERFORM raise_epochs(p_app, p_above);
        PERFORM tell_work(p_app, every(r.available_at <= now))
        FROM json_to_recordset(p_batch) AS r (available_at float8);
    END IF;
    IF p_max_queue IS NULL THEN
        added := ARRAY(SELECT insert_tasks(p_app, p_batch, p_push, now));
        IF cardinality(added) = json_array_length(p_batch) THEN
            RETURN;
        END IF;
    ELSE
        PERFORM 1 FROM apps WHERE id = p_app FOR UPDATE;  -- who counts the queue counts alone
    END IF;
    FOR item IN
        SELECT b.value AS whole, r.uuid, r.queue, r.priority, r.available_at, r.digest, r.unique_key
        FROM json_array_elements(p_batch) AS b (value),
        LATERAL json_to_record(b.value) AS r (
            uuid uuid, queue text, priority smallint, available_at float8, digest text, unique_key text)
    LOOP
        standing := item.uuid;
        LOOP
            IF item.uuid = ANY (added) THEN
                kind := 'added';
                EXIT;
            END IF;
            SELECT seq, state, status, digest INTO present FROM tasks
            WHERE app = p_app AND uuid = item.uuid FOR UPDATE;
            IF present.status IS NOT NULL THEN
                kind := CASE WHEN present.digest = item.digest THEN 'same' ELSE 'conflict' END;
                IF kind = 'same' AND p_push AND present.status <= 1 THEN
                    PERFORM push_entries(p_app, json_build_array(json_build_object(
                        'uuid', item.uuid, 'queue', item.queue, 'priority', item.priority,
                        'due_at', item.available_at)), 0);
                END IF;
                EXIT;
            END IF;
            SELECT uuid INTO standing FROM tasks
            WHERE app = p_app AND unique_key = item.unique_key AND status <= 1;
            IF FOUND THEN
                kind := 'exists';
                EXIT;
            END IF;
            standing := item.uuid;
            IF p_max_queue IS NOT NULL AND p_push THEN
                IF NOT room ? item.queue THEN
                    room := room || jsonb_build_object(item.queue, waiting_room(p_app, item.queue, p_max_queue));
                END IF;
                IF (room ->> item.queue)::integer <= 0 THEN
                    kind := 'full';
                    EXIT;
                END IF;
                room := room || jsonb_build_object(item.queue, (room ->> item.queue)::integer - 1);
            END IF;
            IF present.seq IS NOT NULL THEN  -- the entry came before its record
                UPDATE tasks t SET ({columns}) = (
                    SELECT {r_columns} FROM json_to_record(item.whole) AS r ({types})
                ) WHERE t.seq = present.seq;
                added := added || item.uuid;
            ELSE  -- where it is inserted by somebody else meanwhile, the loop sees it then
                added := added || ARRAY(SELECT insert_tasks(p_app, json_build_array(item.whole), p_push, now));
            END IF;
        END LOOP;
        RETURN NEXT;
    END LOOP;
END $$;

-- Takes back what was claimed and cannot start (R7, R4): terminal, without a record, not due, or of an old epoch.
CREATE FUNCTION {schema}.set_aside(p_app integer, p_seqs bigint[], p_now float8, p_grace float8) RETURNS void
LANGUAGE plpgsql {settings} AS $$
BEGIN
    UPDATE tasks SET
        state = CASE
            WHEN status > 1 THEN NULL
            WHEN status IS NULL AND p_now > pushed_at + p_grace THEN 3
            WHEN status IS NULL OR available_at > p_now THEN 1
            ELSE 0
        END,
        due_at = CASE WHEN status IS NULL THEN p_now + 1 ELSE available_at END,
        reason = '"the storage has no record of this task"',
        restored = false
    WHERE seq = ANY (p_seqs) AND state = 0;
    PERFORM raise_epochs(p_app, max(epoch)) FROM tasks WHERE seq = ANY (p_seqs) AND state = 0;
END $$;

CREATE FUNCTION {schema}.claim_and_start(
    p_app integer, p_n integer, p_queues text[], p_owner text, p_lease float8, p_grace float8
) RETURNS TABLE (
    r_deliveries integer, r_restored boolean, r_queue text, r_priority smallint, r_pushed_at float8, {result}
) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    due bigint[] := due_entries(p_app, p_n, p_queues, now);
    base bigint := (SELECT epoch_base FROM apps WHERE id = p_app);
    started integer;
BEGIN
    RETURN QUERY WITH taken AS (
        UPDATE tasks t SET
            state = 2, entry_epoch = d.epoch, entry_owner = p_owner, entry_deliveries = t.entry_deliveries + 1,
            lease_until = now + p_lease,
            status = 1, epoch = d.epoch, owner = p_owner, deliveries = t.entry_deliveries + 1, started_at = now,
            updated_at = now
        FROM (SELECT due_seq AS seq, base + nextval('epochs') AS epoch FROM unnest(due) AS due_seq) d
        WHERE t.seq = d.seq AND t.status <= 1 AND t.available_at <= now AND t.epoch < d.epoch
        RETURNING t.*
    )
    SELECT entry_deliveries, restored, entry_queue, entry_priority, pushed_at, {columns} FROM taken
    ORDER BY array_position(p_queues, entry_queue), entry_priority, seq;
    GET DIAGNOSTICS started = ROW_COUNT;
    IF started < cardinality(due) THEN
        PERFORM set_aside(p_app, due, now, p_grace);
    END IF;
END $$;

-- NEW → PROCESS under R4. One row for each item whose record is here.
CREATE FUNCTION {schema}.start_tasks(p_app integer, p_batch json)
RETURNS TABLE (kind text, seconds float8, {result}) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    item record;
BEGIN
    FOR item IN
        SELECT * FROM items(p_batch)
    LOOP
        RETURN QUERY
            UPDATE tasks t SET
                status = 1, epoch = item.epoch, owner = item.owner, deliveries = item.deliveries, started_at = now,
                updated_at = now
            WHERE t.app = p_app AND t.uuid = item.uuid AND t.status + 0 <= 1 AND t.available_at <= now
                AND t.epoch < item.epoch
            RETURNING 'started', 0::float8, {t_columns};
        CONTINUE WHEN FOUND;
        RETURN QUERY
            SELECT
                CASE
                    WHEN t.status > 1 THEN 'terminal'
                    WHEN t.status = 1 AND t.epoch = item.epoch AND t.owner = item.owner THEN 'started'
                    WHEN t.epoch >= item.epoch THEN 'conflict'
                    ELSE 'not due'
                END,
                t.available_at - now, {t_columns}
            FROM tasks t WHERE t.app = p_app AND t.uuid = item.uuid AND t.status IS NOT NULL;
    END LOOP;
END $$;

-- Ends deliveries (R2, R4, R5, R6); with p_entries their entries too. No row comes back for what is accepted.
CREATE FUNCTION {schema}.settle_tasks(
    p_app integer, p_batch json, p_entries boolean, p_then json, p_above bigint
) RETURNS TABLE (r_n integer, r_mine boolean) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    accepted integer[];
    ended uuid[];
    ready boolean;
BEGIN
    PERFORM raise_epochs(p_app, p_above);
    WITH done AS (
        UPDATE tasks t SET
            status = v.status,
            {changes},
            state = CASE WHEN {held} THEN v.state ELSE t.state END,
            due_at = CASE WHEN {held} AND v.state IS NOT NULL THEN now + v.delay ELSE t.due_at END,
            entry_deliveries = CASE
                WHEN {held} AND v.state IS NOT NULL THEN v.back ELSE t.entry_deliveries END,
            restored = false
        FROM (
            SELECT n, uuid, epoch, owner, status, delay, back,
                CASE WHEN delay > 0 THEN 1 WHEN delay <= 0 THEN 0 END AS state,
                CASE WHEN delay IS NULL OR c ? 'available_at' THEN c
                    ELSE c || jsonb_build_object('available_at', now + delay) END AS c
            FROM items(p_batch)
        ) v
        WHERE t.app = p_app AND t.uuid = v.uuid AND t.status + 0 = 1 AND t.epoch = v.epoch AND t.owner = v.owner
        RETURNING v.n, t.uuid, t.status, v.delay
    )
    SELECT array_agg(n), array_agg(uuid) FILTER (WHERE status > 1), every(delay <= 0) INTO accepted, ended, ready
    FROM done;
    IF ended IS NOT NULL THEN
        PERFORM tell_ended(p_app, ended);
    END IF;
    IF ready IS NOT NULL AND p_entries THEN
        PERFORM tell_work(p_app, ready);
    END IF;
    IF p_then IS NOT NULL AND accepted IS NOT NULL THEN
        PERFORM add_tasks(p_app, json_agg(b.value), p_entries, NULL, 0)
        FROM json_array_elements(p_then) AS b (value) WHERE (b.value ->> 'parent')::integer = ANY (accepted)
        HAVING count(*) > 0;
    END IF;
    IF coalesce(cardinality(accepted), 0) < json_array_length(p_batch) THEN
        RETURN QUERY SELECT * FROM settled_before(p_app, p_batch, p_entries, coalesce(accepted, ARRAY[]::integer[]));
    END IF;
END $$;

-- The settles that were not accepted: were they mine? Then what is still held is given back (R6).
CREATE FUNCTION {schema}.settled_before(p_app integer, p_batch json, p_entries boolean, p_accepted integer[])
RETURNS TABLE (r_n integer, r_mine boolean) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    item record;
BEGIN
    FOR item IN
        SELECT * FROM items(p_batch) WHERE NOT n = ANY (p_accepted)
    LOOP
        r_n := item.n;
        PERFORM 1 FROM tasks t
        WHERE t.app = p_app AND t.uuid = item.uuid AND t.status <> 1 AND t.epoch = item.epoch AND t.owner = item.owner;
        r_mine := FOUND;
        IF FOUND AND p_entries THEN
            UPDATE tasks t SET
                state = CASE WHEN item.delay > 0 THEN 1 WHEN item.delay <= 0 THEN 0 END,
                due_at = coalesce(now + item.delay, t.due_at),
                entry_deliveries = coalesce(item.back, t.entry_deliveries), restored = false
            WHERE t.app = p_app AND t.uuid = item.uuid AND t.state = 2 AND t.entry_epoch = item.epoch
                AND t.entry_owner = item.owner;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE FUNCTION {schema}.update_tasks(p_app integer, p_batch json) RETURNS SETOF uuid
LANGUAGE sql {settings} AS $$
    UPDATE tasks t SET {changes}
    FROM items(p_batch) v
    WHERE t.app = p_app AND t.uuid = v.uuid AND t.status + 0 <= 1
    RETURNING t.uuid
$$;

CREATE FUNCTION {schema}.cancel_tasks(p_app integer, p_batch json)
RETURNS TABLE (r_uuid uuid, verdict text) LANGUAGE plpgsql {settings} AS $$
DECLARE
    now float8 := moment();
    item record;
BEGIN
    FOR item IN
        SELECT t.seq, t.uuid, t.status, v.reason, v.expires_at
        FROM items(p_batch) v, tasks t
        WHERE t.app = p_app AND t.uuid = v.uuid AND t.status IS NOT NULL FOR UPDATE OF t
    LOOP
        r_uuid := item.uuid;
        verdict := CASE item.status WHEN 0 THEN 'cancelled' WHEN 1 THEN 'requested' ELSE 'terminal' END;
        IF item.status = 0 THEN
            UPDATE tasks SET status = 4, owner = '""', finished_at = now, updated_at = now,
                expires_at = item.expires_at, cancel_reason = item.reason
            WHERE seq = item.seq;
            PERFORM tell_ended(p_app, ARRAY[item.uuid]);
        ELSIF item.status = 1 THEN
            UPDATE tasks SET cancel_requested = true, cancel_reason = item.reason WHERE seq = item.seq;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Deletes records with their items; an entry stays where there is one. Whoever waits for them looks again.
CREATE FUNCTION {schema}.drop_records(p_app integer, p_seqs bigint[]) RETURNS void LANGUAGE plpgsql {settings} AS $$
BEGIN
    IF cardinality(p_seqs) > 0 THEN
        DELETE FROM items WHERE app = p_app AND uuid = ANY (
            ARRAY(SELECT t.uuid FROM tasks t WHERE t.seq = ANY (p_seqs)));
        DELETE FROM tasks WHERE seq = ANY (p_seqs) AND state IS NULL;
        UPDATE tasks SET {no_record} WHERE seq = ANY (p_seqs);
        PERFORM pg_notify({channel}, p_app || ' f');
    END IF;
END $$;

CREATE FUNCTION {schema}.delete_tasks(p_app integer, p_uuids uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql {settings} AS $$
DECLARE
    found bigint[];
    deleted uuid[];
BEGIN
    SELECT array_agg(l.seq), array_agg(l.uuid) INTO found, deleted FROM (
        SELECT seq, uuid FROM tasks WHERE app = p_app AND uuid = ANY (p_uuids) AND status + 0 > 1 ORDER BY uuid FOR UPDATE
    ) l;
    PERFORM drop_records(p_app, found);
    RETURN QUERY SELECT unnest(deleted);
END $$;

-- One step of the retention, so that no transaction is long.
CREATE FUNCTION {schema}.purge_tasks(p_app integer, p_before float8, p_dead_max integer, p_limit integer)
RETURNS integer LANGUAGE plpgsql {settings} AS $$
DECLARE
    found bigint[] := ARRAY(
        SELECT seq FROM tasks WHERE app = p_app AND status > 1 AND expires_at < p_before
        ORDER BY expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    );
    dead_count bigint;
BEGIN
    IF cardinality(found) = 0 THEN
        SELECT count(*) INTO dead_count FROM tasks WHERE app = p_app AND dead;
        found := ARRAY(
            SELECT seq FROM tasks WHERE app = p_app AND dead ORDER BY finished_at, seq
            LIMIT greatest(0, least(p_limit, dead_count - p_dead_max)) FOR UPDATE SKIP LOCKED
        );
    END IF;
    PERFORM drop_records(p_app, found);
    RETURN cardinality(found);
END $$;

-- Items of a running generator, under its token. What stood at p_begin and after it is replaced.
CREATE FUNCTION {schema}.append_items(
    p_app integer, p_uuid uuid, p_epoch bigint, p_owner text, p_begin integer, p_values text[]
) RETURNS boolean LANGUAGE plpgsql {settings} AS $$
BEGIN
    PERFORM 1 FROM tasks
    WHERE app = p_app AND uuid = p_uuid AND status = 1 AND epoch = p_epoch AND owner = p_owner FOR UPDATE;
    IF NOT FOUND OR p_begin > coalesce((SELECT max(number) + 1 FROM items WHERE app = p_app AND uuid = p_uuid), 0)
    THEN
        RETURN false;
    END IF;
    DELETE FROM items WHERE app = p_app AND uuid = p_uuid AND number >= p_begin;
    INSERT INTO items (app, uuid, number, value)
    SELECT p_app, p_uuid, p_begin + i.n - 1, i.value FROM unnest(p_values) WITH ORDINALITY AS i (value, n);
    RETURN true;
END $$;
