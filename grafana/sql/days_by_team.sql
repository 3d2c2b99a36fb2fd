-- Days in the time zone of the dashboard: quarter hours add up to those of every zone.
SELECT
    date_trunc('day', bucket, ${timezone:sqlstring}) AS time,
    coalesce(teams.name, team_id) AS metric,
    sum(cost / 1e12) AS value
FROM usage_15m
LEFT JOIN teams ON teams.id = team_id
WHERE $__timeFilter(bucket)
    AND ('*' IN (${team:sqlstring}) OR coalesce(teams.name, team_id) IN (${team:sqlstring}))
    AND ('*' IN (${model:sqlstring}) OR model IN (${model:sqlstring}))
GROUP BY 1, 2
ORDER BY 1, 2
