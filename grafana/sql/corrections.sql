-- Entries that belong to a closed month and count here instead: events that came late, and corrections.
SELECT
    date_trunc('day', bucket, ${timezone:sqlstring}) AS "Counted on",
    coalesce(teams.name, usage_15m.team_id) AS "Team",
    coalesce(api_keys.name, key_id) AS "Key",
    model AS "Model",
    sum(corrections) AS "Entries",
    sum(correction_cost / 1e12) AS "Cost"
FROM usage_15m
LEFT JOIN teams ON teams.id = usage_15m.team_id
LEFT JOIN api_keys ON api_keys.id = key_id
WHERE $__timeFilter(bucket)
    AND corrections <> 0
    AND ('*' IN (${team:sqlstring}) OR coalesce(teams.name, usage_15m.team_id) IN (${team:sqlstring}))
    AND ('*' IN (${model:sqlstring}) OR model IN (${model:sqlstring}))
GROUP BY 1, 2, 3, 4
ORDER BY 1 DESC, abs(sum(correction_cost)) DESC
LIMIT 1000
