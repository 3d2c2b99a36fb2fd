-- Requests that meter refused by itself; they cost nothing and are no events.
SELECT
    coalesce(teams.name, '') AS "Team",
    coalesce(api_keys.name, key_id) AS "Key",
    reason AS "Reason",
    sum(count) AS "Requests",
    max(hour) AS "Last in the hour of"
FROM refusals_hourly
LEFT JOIN api_keys ON api_keys.id = key_id
LEFT JOIN teams ON teams.id = api_keys.team_id
WHERE $__timeFilter(hour)
    AND ('*' IN (${team:sqlstring}) OR teams.name IN (${team:sqlstring}))
GROUP BY 1, 2, 3
ORDER BY "Requests" DESC
LIMIT 1000
