"""SQL over the tables: the views say what the files say, and nothing else can be reached or changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipeline.bounded import Limits
from pipeline.contracts import GAPS, RESPONSES, ROLLOUTS, SCORES, TABLES, Table
from pipeline.errors import Refused
from pipeline.tables import parquet, sql, tensors
from pipeline.tables.parquet import Scan
from pipeline.tables.rules import ANSWERS, check_expression, columns, faults, query

ALL = ["score", "quantities", "vector", "detail"]


def response(key: str, prompt: str, model: str = "teacher") -> dict:
    return {
        "response_id": key, "request_id": key, "prompt_id": prompt, "messages": [{"role": "user", "content": "1+1"}],
        "domain": "add", "entry": model, "model_id": model, "sample": 0, "seed": 0, "content": "2",
        "finish_reason": "stop", "token_ids": [1, 2], "prompt_tokens": 3, "completion_tokens": 2, "attempts": 1,
    }  # fmt: skip


def score(key: str, prompt: str, value: float | None, vector: list[float] | None = None) -> dict:
    quantities = [] if value is None else [("votes", value * 8), ("samples", 8.0)]
    return {"response_id": key, "prompt_id": prompt, "score": value, "quantities": quantities, "vector": vector}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two models' answers to a pool in two parts; a score of all, a score of the teacher's, and another pool."""
    root = tmp_path / "it's data"

    def put(table: Table, folder: str, rows: list[dict], parts: int = 2) -> None:
        parquet.write(table, root / folder, parts, [table.rows(rows)])

    put(RESPONSES, "responses/train/teacher", [response("a0", "00000000"), response("a1", "00000001")])
    put(RESPONSES, "responses/train/base", [response("b0", "00000000", "base")])
    put(RESPONSES, "responses/other/teacher", [response("a0", "00000000")], parts=1)
    put(
        SCORES,
        "scores/responses/train/agreement",
        [score("a0", "00000000", 0.5), score("a1", "00000001", None), score("b0", "00000000", 1.0)],
    )
    put(SCORES, "scores/responses/train/teacher/nll", [score("a0", "00000000", 2.0, [1.0, 2.0])])
    put(GAPS, "gaps/main", [{"domain": "add", "n": 1, "weight": 1.0}], parts=1)
    return root


def train(data: Path) -> list[Scan]:
    """What a selection of responses/train reads."""
    answers = tuple(data / "responses/train" / model for model in ("base", "teacher"))
    scores = tuple(data / "scores/responses/train" / name for name in ("agreement", "teacher/nll"))
    return [Scan(RESPONSES, answers), Scan(SCORES, scores), Scan(GAPS, (data / "gaps/main",))]


def test_scores_wide_joins_every_scorer_by_record(data: Path) -> None:
    found = columns(
        train(data),
        data,
        {"score": "agreement.score", "votes": "agreement.quantities['votes']", "no": "agreement.quantities['no']",
         "vector": "nll.vector", "where": "of || '/' || instance"},
    ).to_pylist()  # fmt: skip
    assert found == [
        {"response_id": "a0", "score": 0.5, "votes": 4.0, "no": None, "vector": [1.0, 2.0], "where": "train/teacher"},
        {"response_id": "a1", "score": None, "votes": None, "no": None, "vector": None, "where": "train/teacher"},
        {"response_id": "b0", "score": 1.0, "votes": 8.0, "no": None, "vector": None, "where": "train/base"},
    ]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("agreement.score", {"agreement": ["score"]}), ("AGREEMENT.Score", {"agreement": ["score"]}),
        ("scores_wide.agreement.score", {"agreement": ["score"]}), ("completion_tokens", {}),
        ("miniplm(nll.score, agreement.score)", {"agreement": ["score"], "nll": ["score"]}),
        ("agreement.score + len(agreement.detail)", {"agreement": ["score", "detail"]}),
        ("agreement['score']", {"agreement": ALL}), ("agreement IS NULL", {"agreement": ALL}),
        ("len(agreement::VARCHAR)", {"agreement": ALL}), ("nll.vector[1]", {"nll": ["vector"]}),
        ("(SELECT max(w.nll.score) FROM scores_wide w)", {"nll": ["score"]}),
        ("(SELECT len(list(w)::VARCHAR) FROM (SELECT * FROM scores_wide ORDER BY response_id) w)", {
            "agreement": ALL, "nll": ALL,
        }),
    ],
)  # fmt: skip
def test_what_no_rule_names_is_not_joined_and_changes_nothing(rule: str, kept: dict, data: Path) -> None:
    whole = sql.connect(train(data), data)
    expected = whole.sql(f"SELECT response_id, ({rule}) AS value FROM scores_wide ORDER BY response_id")
    assert columns(train(data), data, {"value": rule}).to_pylist() == expected.to_arrow_table().to_pylist()
    sql.narrow(whole, train(data), data, check_expression(whole, rule))
    view = whole.sql("SELECT * FROM scores_wide").to_arrow_table().schema
    structs = {field.name: [part.name for part in field.type] for field in view if pa.types.is_struct(field.type)}
    assert structs == kept


def test_a_name_of_a_result_is_not_taken_for_a_column(data: Path) -> None:
    found = columns(train(data), data, {"domain": "'x'", "copy": "domain"})
    assert found["copy"].to_pylist() == ["add"] * 3


def test_rules_may_look_at_siblings_gaps_and_macros(data: Path) -> None:
    found = columns(
        train(data),
        data,
        {
            "best": "agreement.score = max(agreement.score) OVER (PARTITION BY prompt_id)",
            "weight": "(SELECT weight FROM gaps WHERE gaps.domain = scores_wide.domain)",
            "gap": "miniplm(nll.score, agreement.score)",
        },
    ).to_pydict()
    assert found["best"] == [False, None, True]
    assert found["weight"] == [1.0] * 3
    assert found["gap"] == [1.5, None, None]


def test_query_sees_every_table_and_a_score_only_joins_its_own_answers(data: Path) -> None:
    counts = query(
        data, "SELECT of, instance, count(*) n, count(agreement) scored FROM scores_wide GROUP BY ALL ORDER BY ALL"
    )
    assert [tuple(row.values()) for row in counts.to_pylist()] == [
        ("other", "teacher", 1, 0), ("train", "base", 1, 1), ("train", "teacher", 2, 2),
    ]  # fmt: skip
    assert query(data, "SELECT instance FROM gaps")["instance"].to_pylist() == ["main"]
    assert query(data, "WITH few AS (FROM responses LIMIT 2) SELECT count(*) FROM few").num_rows == 1
    assert query(data, "DESCRIBE scores_wide").num_rows > 10


def test_views_are_as_the_contracts_say_also_without_files(tmp_path: Path) -> None:
    assert set(sql.VIEWS) == {*TABLES, "scores_wide", "manifests"}
    for name, table in TABLES.items():
        found = query(tmp_path, f"SELECT * EXCLUDE (instance, of) FROM {name}")
        assert found.num_rows == 0
        # DuckDB gives 32-bit offsets or views as it likes; the names and their order are the contract here.
        assert found.schema.names == table.schema.names
    empty = sql.connect([], tmp_path).sql("FROM scores").to_arrow_table()
    assert empty.schema.field("quantities").type == pa.map_(pa.string(), pa.float64())


def test_the_types_of_empty_views_are_those_of_files(data: Path) -> None:
    full, empty = sql.connect(train(data), data), sql.empty(["agreement", "nll"])
    assert full.sql("DESCRIBE scores_wide").fetchall() == empty.sql("DESCRIBE scores_wide").fetchall()


def test_the_types_of_empty_tables_are_those_of_files(tmp_path: Path) -> None:
    """Of cells of arrays too, so that a rule that the plan accepts holds in the run."""
    image = tensors.cell({"image": np.zeros((2, 3), np.uint8)})
    for name in ("prompts", "responses"):
        table = TABLES[name]
        batch = table.rows([{**response("a0", "00000000"), "source": "s", "group": "g", "inputs": image}])
        parquet.write(table, tmp_path / name / "mine", 1, [batch])
    described = [query(folder, "DESCRIBE prompts").to_pylist() for folder in (tmp_path, tmp_path / "none")]
    assert described[0] == described[1]
    described = [query(folder, "DESCRIBE responses").to_pylist() for folder in (tmp_path, tmp_path / "none")]
    assert described[0] == described[1]


def test_arrays_can_be_asked_about_and_are_not_in_the_view_of_rules(tmp_path: Path) -> None:
    image = tensors.cell({"image": np.zeros((2, 3), np.uint8), "mask": np.zeros(2, np.float32)})
    rows = [{**response("a0", "00000000"), "inputs": image}, response("a1", "00000001")]
    parquet.write(RESPONSES, tmp_path / "responses/train/teacher", 1, [RESPONSES.rows(rows)])
    asked = "SELECT shape_of(inputs, 'image') s, has(inputs, 'mask') m, has(inputs, 'x') x FROM responses ORDER BY ALL"
    assert [tuple(row.values()) for row in query(tmp_path, asked).to_pylist()] == [
        ([2, 3], True, False), (None, False, False),
    ]  # fmt: skip
    wide = {row["column_name"] for row in query(tmp_path, "DESCRIBE scores_wide").to_pylist()}
    assert wide.isdisjoint(sql.HEAVY)
    assert not any("BLOB" in str(t) for t in sql.empty([]).sql("DESCRIBE scores_wide").fetchall())


def test_rollouts_are_one_view_over_all_models(tmp_path: Path) -> None:
    def rollout(key: str, step: int) -> dict:
        return {
            "example_id": key, "prompt_id": "00000000", "domain": "add", "token_ids": [1, 2], "weight": 1.0,
            "spans": [{"start": 1, "end": 2}], "template_hash": "t", "tokenizer_hash": "t", "response_ids": ["r"],
            "step": step, "reward": 1.0,
        }  # fmt: skip

    for model in ("kd", "gkd"):
        rows = [ROLLOUTS.rows([rollout(f"{model}{step}", step) for step in (1, 2)])]
        parquet.write(ROLLOUTS, tmp_path / "models" / model / "rollouts", 2, rows)
    found = query(
        tmp_path, "SELECT instance, of, max(step) AS last, count(*) AS n FROM rollouts GROUP BY ALL ORDER BY 1"
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [("gkd", "", 2, 2), ("kd", "", 2, 2)]


ATTACKS = {
    "copy out": "COPY responses TO '{file}'",
    "overwrite its own data": "COPY (SELECT 1) TO '{part}'",
    "create": "CREATE TABLE t AS SELECT 1",
    "attach": "ATTACH '{file}' AS other",
    "drop": "DROP VIEW responses",
    "pragma": "PRAGMA database_list",
    "set": "SET threads = 4",
    "call": "CALL pragma_version()",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "export": "EXPORT DATABASE '{file}'",
    "second statement": "SELECT 1; DROP VIEW responses",
    "nothing": "-- nothing",
    "read_csv": "SELECT * FROM read_csv('{secret}')",
    "read_text": "SELECT * FROM read_text('{secret}')",
    "read_blob": "SELECT content FROM read_blob('{secret}')",
    "glob": "SELECT * FROM glob('{folder}/*')",
    "path as a table": "SELECT * FROM '{secret}'",
    "quoted path as a table": 'SELECT * FROM "{secret}"',
    "a part by its path": "SELECT * FROM '{part}'",
    "subquery": "SELECT (SELECT content FROM read_text('{secret}'))",
    "in a common table": "WITH t AS (SELECT * FROM read_text('{secret}')) SELECT * FROM t",
    "join": "SELECT * FROM responses JOIN read_text('{secret}') ON true",
    "delete in a common table": "WITH t AS (DELETE FROM responses RETURNING *) SELECT * FROM t",
    "query": "SELECT * FROM query('SELECT 1')",
    "query_table": "SELECT * FROM query_table('{secret}')",
    "serialized": "SELECT * FROM json_execute_serialized_sql('[]')",
    "logging": "SELECT * FROM enable_logging(storage_path = '{file}')",
    "pointers": "SELECT * FROM arrow_scan(1, 2, 3)",
    "schemas": "SELECT * FROM information_schema.tables",
    "settings": "SELECT * FROM duckdb_settings()",
    "getenv": "SELECT getenv('HOME')",
    "python variables": "SELECT * FROM ATTACKS",
    "pivot": "PIVOT responses ON domain USING count(*)",
    "unknown function": "SELECT read_text('{secret}')",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_is_refused_and_changes_nothing(attack: str, data: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("sentinel\n1\n")
    part = next((data / "responses/train/teacher").glob("*.parquet"))
    before = parquet.folder_digest(tmp_path)
    names = {"file": tmp_path / "out.db", "secret": secret, "folder": tmp_path, "part": str(part).replace("'", "''")}
    text = ATTACKS[attack].format(**names)
    with pytest.raises(Refused) as refused:
        query(data, text)
    assert "sentinel\n" not in str(refused.value)
    assert parquet.folder_digest(tmp_path) == before
    assert faults({"where": (text.removeprefix("SELECT "), "condition")}, ["agreement"])


def test_the_settings_hold_without_the_reading_of_the_text(data: Path, tmp_path: Path) -> None:
    """The second line of defence, were the first one passed."""
    secret = tmp_path / "secret.txt"
    secret.write_text("sentinel")
    connection = sql.connect(train(data), data)
    for text in (
        f"FROM read_text('{secret}')", f"COPY (SELECT 1) TO '{tmp_path}/x'", f"ATTACH '{tmp_path}/x'",
        "SET threads = 4", "RESET lock_configuration", "SET enable_external_access = true", "LOAD httpfs",
        f"FROM glob('{tmp_path}/*')", f"EXPORT DATABASE '{tmp_path}/x'", "FROM enable_logging()",
    ):  # fmt: skip
        with pytest.raises(Exception, match=r"disabled|locked|Cannot|not"):
            connection.execute(text).fetchall()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's data", "secret.txt"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("agremen.score > 0", "agreement, format"),
        ("colour = 'red'", "colour"),
        ("agreement.scor > 0", "scor"),
        ("agreement.score", "must be a condition; it is DOUBLE"),
        ("agreement.score >", "syntax error"),
        ("random() < 0.5", "random may differ"),
        ("now() > now()", "now may differ"),
        ("current_date IS NULL", "current_date may differ"),
        ("current_user = 'me'", "current_user may differ"),
        ("uuid() > 'a'", "uuid may differ"),
        ("EXISTS (FROM responses USING SAMPLE 1)", "sample"),
        ("unnest([true, false])", "rows"),
        ("1 = 1) FROM responses WHERE (1 = 1", "closes a bracket"),
        ("true) UNION SELECT (true", "closes a bracket"),
        ("true) OR (true", "closes a bracket that it did not open"),
        ("agreement.score > 0) OR (1 = 1", "closes a bracket that it did not open"),
        ("true\n), (false", "closes a bracket that it did not open"),
        ("true) AS x, (true", "closes a bracket that it did not open"),
        ("true) -- (", "closes a bracket that it did not open"),
        ("true) /* */ AND (true", "closes a bracket that it did not open"),
        ("')' = 'x') OR (')' = ')'", "closes a bracket that it did not open"),
        ("'\u00e9' = '\u00e9') OR (true", "closes a bracket that it did not open"),
        ("[true] = [true]] OR [true", "closes a bracket that it did not open"),
        ("(true)) OR ((true)", "closes a bracket that it did not open"),
        ("true) IS NULL OR NOT (false", "closes a bracket that it did not open"),
        ("CASE WHEN true) THEN (true", "closes a bracket that it did not open"),
        ("true, false", "must be a condition"),
        ("*", "columns"),
        ("count(*) > 1", "GROUP BY"),
        ("EXISTS (FROM read_text('/etc/passwd'))", "read_text"),
        ("EXISTS (FROM '/etc/passwd')", "no view"),
        # It would be empty there, and the rule would say nothing of it.
        ("prompt_id IN (SELECT prompt_id FROM prompts)", "there is no view 'prompts' here; there are responses"),
        ("", "must be a condition"),
    ],
)
def test_a_bad_rule_is_a_fault_of_the_plan(rule: str, says: str) -> None:
    [fault] = faults({"where": (rule, "condition")}, ["agreement", "format"])
    assert fault.startswith(f"where: {rule!r}")
    assert says in fault


def test_a_good_rule_is_none() -> None:
    rules = {
        "brackets": ("content = ')' OR content LIKE '%)(%' OR \"entry\" = $$)$$ -- )", "condition"),
        "a subquery without brackets of its own": ("SELECT max(weight) > 0 FROM gaps", "condition"),
        "where": ("agreement.score >= 0.375 AND finish_reason = 'stop' -- sure", "condition"),
        "by": ("ifd(agreement.score, nll.score)", "number"),
        "vector": ("nll.vector", "vector"),
        "order": ('"order".score IN (SELECT max(weight) FROM gaps)', "condition"),
    }
    assert faults(rules, ["agreement", "nll", "order"], views=ANSWERS | {"gaps"}) == []


def test_score_names_that_rules_could_not_tell_apart_are_faults() -> None:
    rules = {"where": ("true", "condition")}
    assert "domain" in faults(rules, ["domain"])[0]
    assert "two scores are called x" in faults(rules, ["x", "x"])[0]


ENDLESS = {
    "a recursion without an end": "WITH RECURSIVE t AS (SELECT 1 n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    "a recursion that repeats": "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n FROM t) SELECT sum(n) FROM t",
    "pairs": "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range + b.range = -1",
    "a long range": "SELECT sum(sin(range)) FROM range(1000000000000)",
    "sorted pairs": "SELECT max(hash(a.range, b.range)) FROM range(1000000) a, range(100000000) b",
    "a correlated one": "SELECT (SELECT sum(sin(range + sample)) FROM range(10000000000)) FROM responses",
    "under a limit": "SELECT a.range FROM range(1000000000) a, range(1000000000) b WHERE a.range + b.range < 0 LIMIT 1",
    "a join with itself": "SELECT count(*) FROM range(10000000) a JOIN range(10000000) b ON a.range <> b.range",
    "a series": "SELECT count(DISTINCT x % 7) FROM generate_series(1, 1000000000000) t(x)",
    "a lateral join": "SELECT sum(sin(y)) FROM range(100000000) a, LATERAL (SELECT a.range + 1 y FROM range(99999))",
    "a union": "SELECT sum(sin(x)) FROM (FROM range(1000000000000) t(x) UNION ALL FROM range(1000000000000) t(x))",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_text_that_never_ends_is_ended_and_refused(what: str, data: Path) -> None:
    with pytest.raises(Refused, match=r"it needs more than .*run\.query_(s|memory)"):
        query(data, ENDLESS[what], limits=Limits(0.3, 1_000_000_000))


HUNGRY = {
    "a list": "SELECT len(list(repeat('x', 1000) || range)) FROM range(1000000000)",
    "a long text": "SELECT length(string_agg(repeat('x', 100000), ',')) FROM range(100000)",
    "a map": "SELECT histogram(hash(range)) FROM range(1000000000)",
    "a sort": "SELECT repeat('x', 1000) || range AS t FROM range(1000000000) ORDER BY t",
    "groups": "SELECT hash(range) AS h, repeat('x', 500) || h AS t, count(*) FROM range(1000000000) GROUP BY ALL",
    "distinct": "SELECT count(DISTINCT repeat('x', 1000) || range) FROM range(1000000000)",
    "a window": "SELECT max(t) OVER (ORDER BY t) FROM (SELECT repeat('x', 1000) || range AS t FROM range(1000000000))",
    "a hash join": "SELECT count(*) FROM (SELECT repeat('x', 1000) || range AS t FROM range(100000000)) a "
    "JOIN (SELECT repeat('x', 1000) || range AS t FROM range(100000000)) b USING (t)",
    "one value": "SELECT length(repeat('x', 2000000000))",
    "one list": "SELECT len(range(1000000000))",
    "all of its rows": "SELECT repeat('x', 1000) || range FROM range(1000000000)",
}  # fmt: skip


@pytest.mark.parametrize("what", HUNGRY)
def test_a_text_that_takes_too_much_memory_is_ended_and_refused(what: str, data: Path) -> None:
    with pytest.raises(Refused, match=r"it needs more than 0\.3 GB \(run\.query_memory\)"):
        query(data, HUNGRY[what], limits=Limits(60, 300_000_000))


def test_a_rule_is_bounded_as_a_query_is(data: Path) -> None:
    """In the run, where it meets rows, and in the plan, where a constant is computed."""
    rule = "(SELECT sum(sin(range)) FROM range(1000000000000)) > 0"
    with pytest.raises(Refused, match=r"select\.a\.where: .*run\.query_s"):
        columns(train(data), data, {"where": rule}, {"where": f"select.a.where: {rule}"}, Limits(0.3, 1_000_000_000))
    # Its limits are so narrow that nothing fits: what a plan cannot check in them is a fault, and no traceback.
    [fault] = faults({"where": ("true", "condition")}, [], Limits(1e-4, 1_000_000_000))
    assert fault.startswith("where: 'true'") and "run.query_s" in fault


@pytest.mark.parametrize(("most", "rows"), [(1, 1), (2, 2), (3, 3), (4, 3), (None, 3)])
def test_the_first_rows_are_enough_if_no_more_are_asked_for(most: int | None, rows: int, data: Path) -> None:
    found = query(data, "SELECT response_id FROM responses WHERE of = 'train' ORDER BY 1", most=most)
    assert found["response_id"].to_pylist() == ["a0", "a1", "b0"][:rows]


def test_few_rows_of_an_endless_text_are_had(data: Path) -> None:
    found = query(data, "SELECT range AS n FROM range(1000000000000)", most=3, limits=Limits(60, 1_000_000_000))
    assert found["n"].to_pylist() == [0, 1, 2]


SAID = {
    "agremen.score > 0": ("Did you mean agreement?", "agreement, format"),
    "agreement.scor > 0": ('Candidate Entries: "score"', "agreement, format"),
    "agreement.quantites['votes'] > 0": ('"quantities"', "agreement, format"),
    "contnt = 'a'": ("Did you mean content?", '"content"'),
    "finish_reson = 'stop'": ("Did you mean finish_reason?",),
    "formt.score > 0": ("Did you mean format?",),
    "lenght(content) > 1": ('Did you mean "length"?',),
    "regexp_match(content, 'a')": ('"regexp_matches"',),
    "completion_token > 1": ('"completion_tokens"',),
    "scores_wid.domain = 'x'": ("Did you mean",),
    "domian = 'add'": ("Did you mean domain?",),
    "formt > agreement.score": ("Did you mean format?", "agreement, format"),
}


@pytest.mark.parametrize("rule", SAID)
def test_an_error_names_the_key_and_the_candidates(rule: str) -> None:
    [fault] = faults({"where": (rule, "condition")}, ["agreement", "format"])
    assert fault.startswith("where: ") and "LINE" not in fault and "\n" not in fault
    assert [said for said in SAID[rule] if said not in fault] == []


FAILING = {
    "content::INT > 1": "content",
    "content::DATE IS NULL": "content",
    "agreement.score > 0 AND strptime(content, '%Y') IS NULL": "content",
    "json(content) IS NULL": "content",
    "content::BOOLEAN": "content",
    "content::UUID IS NULL": "content",
    "(content || '9')::TINYINT > 1": "content",
    "error('no') IS NULL": "no",
    "content::TIMESTAMP IS NULL": "content",
    "content::INT[] IS NULL": "content",
    "regexp_matches(content, '(' || content)": "regex",
}


def test_an_error_in_a_row_is_refused_also_where_rows_are_read_one_by_one(data: Path) -> None:
    text = "SELECT CASE WHEN entry = 'base' THEN CAST(content || 'x' AS INT) END FROM responses"
    for most in (None, 50):
        with pytest.raises(Refused, match="Could not convert string '2x'"):
            query(data, text, most=most)


@pytest.mark.parametrize("rule", FAILING)
def test_a_rule_that_fails_in_the_run_is_named_by_its_key(rule: str, tmp_path: Path) -> None:
    rows = [RESPONSES.rows([{**response("a0", "00000000"), "content": "two {"}])]
    parquet.write(RESPONSES, tmp_path / "responses/train/teacher", 1, rows)
    scans = [Scan(RESPONSES, (tmp_path / "responses/train/teacher",)), Scan(SCORES, ())]
    asked = {"prompt_id": "prompt_id", "where": f"coalesce(({rule.replace('agreement.score', '1')}\n), false)"}
    with pytest.raises(Refused) as refused:
        columns(scans, tmp_path, asked, {"where": f"select.a.where: {rule}"})
    assert str(refused.value).startswith(("'select.a.where: ", '"select.a.where: '))


def test_what_does_not_fit_goes_to_the_disk_and_is_gone_afterwards(tmp_path: Path) -> None:
    text = "SELECT count(*), max(m) FROM (SELECT DISTINCT md5(i::VARCHAR) m FROM range(600_000) t(i))"
    connection = sql.connect([], tmp_path, 40_000_000)
    with pytest.raises(duckdb.OutOfMemoryException):
        connection.sql(text).fetchall()
    connection = sql.connect([], tmp_path, 40_000_000, tmp_path / "spill", 30_000_000)
    assert connection.sql(text).fetchall() == [
        (600_000, max(hashlib.md5(b"%d" % i).hexdigest() for i in range(600_000)))
    ]
    with pytest.raises(duckdb.Error, match="disabled"):
        connection.execute(f"COPY (SELECT 1) TO '{tmp_path}/stolen.csv'")
    connection.close()
    assert list(tmp_path.iterdir()) == []
