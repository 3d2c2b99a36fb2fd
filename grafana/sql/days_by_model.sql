-- The ten dearest models of the range, and all others together.
WITH spent AS (
    SELECT date_trunc('day', bucket, ${timezone:sqlstring}) AS day, model, sum(cost / 1e12) AS cost_usd
    FROM usage_15m
    LEFT JOIN teams ON teams.id = team_id
    WHERE $__timeFilter(bucket)
        AND ('*' IN (${team:sqlstring}) OR coalesce(teams.name, team_id) IN (${team:sqlstring}))
        AND ('*' IN (${model:sqlstring}) OR model IN (${model:sqlstring}))
    GROUP BY 1, 2
),
dearest AS (
    SELECT model FROM spent GROUP BY model ORDER BY sum(cost_usd) DESC, model LIMIT 10
)
SELECT
    day AS time,
    CASE WHEN model IN (SELECT model FROM dearest) THEN model ELSE 'other' END AS metric,
    sum(cost_usd) AS value
FROM spent
GROUP BY 1, 2
ORDER BY 1, 2
