-- The tests make a database of this.
CREATE TABLE transformation_config (
    Layer TEXT, StepName TEXT, StepType TEXT, Engine TEXT, Value TEXT, Params TEXT, Inputs TEXT, Outputs TEXT,
    Metadata TEXT, retry TEXT, timeout REAL, tags TEXT, "when" TEXT, after TEXT, run_on TEXT, execution_order INTEGER,
    project TEXT, enabled INTEGER
);
INSERT INTO transformation_config VALUES (
    'Ingest', 'flights', 'config_op', 'Pandas', 'data/flights.csv', '{"sep": ",", "nrows": 1000}', NULL, '{"data": "flights"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 10, 'air', 1
);
INSERT INTO transformation_config VALUES (
    'transform', 'delays', 'SQL', NULL, 'SELECT origin, avg(dep_delay) AS delay
FROM data GROUP BY origin', NULL, '{"data": "flights"}', NULL, NULL, '{"attempts": 4, "wait": 0.5, "on": ["OSError", "TimeoutError"]}', 30, '["daily", "12:30"]', NULL, NULL, NULL, 20, 'air', 1
);
INSERT INTO transformation_config VALUES (
    'publish', 'report', 'config_op', 'spark', 'out/worst.parquet', NULL, '{"data": "worst"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 40, 'air', 1
);
INSERT INTO transformation_config VALUES (
    NULL, 'worst', 'function', 'pandas', 'worst_of', '{"top": 3, "flags": [true, "on"]}', '{"frame": "delays"}', NULL, '{"owner": "ops"}', NULL, NULL, NULL, 'is_weekday', 'delays', 'thread', 30, 'air', 1
);
