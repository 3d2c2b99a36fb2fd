-- What was used in the dashboard's range, one line for each day, team, key and model: whole days in UTC from
-- the sums of days, and the two ends of the range from those of quarter hours.
edges AS (
    SELECT
        date_trunc('day', $__timeFrom()::timestamptz + interval '1 day - 1 microsecond', 'UTC') AS first_day,
        date_trunc('day', $__timeTo()::timestamptz, 'UTC') AS last_day
),
lines AS (
    SELECT
        bucket, team_id, key_id, model, requests, errors, prompt_tokens, completion_tokens,
        cached_tokens, estimated_tokens + invalid_tokens AS estimated_tokens, unpriced_requests,
        cost_whole / 1e6 + cost_rest / 1e12 AS cost_usd
    FROM usage_days, edges
    WHERE bucket >= first_day AND bucket < last_day
    UNION ALL
    SELECT
        bucket, team_id, key_id, model, requests, errors, prompt_tokens, completion_tokens,
        cached_tokens, estimated_tokens + invalid_tokens, unpriced_requests,
        cost / 1e12
    FROM usage_15m, edges
    WHERE bucket >= $__timeFrom()::timestamptz AND bucket < $__timeTo()::timestamptz
        AND (bucket < first_day OR bucket >= last_day)
),
usage AS (
    SELECT lines.*, coalesce(teams.name, lines.team_id) AS team, coalesce(api_keys.name, key_id) AS key
    FROM lines
    LEFT JOIN teams ON teams.id = lines.team_id
    LEFT JOIN api_keys ON api_keys.id = lines.key_id
    WHERE ('*' IN (${team:sqlstring}) OR coalesce(teams.name, lines.team_id) IN (${team:sqlstring}))
        AND ('*' IN (${model:sqlstring}) OR model IN (${model:sqlstring}))
)
