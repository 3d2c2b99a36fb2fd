-- This month in the time zone of the dashboard, whatever its range: what was spent, and what that comes to by
-- the month's end if spending goes on as it did so far.
WITH month AS (
    SELECT
        date_trunc('month', now(), ${timezone:sqlstring}) AS since,
        date_trunc('month', date_trunc('month', now(), ${timezone:sqlstring}) + interval '32 days', ${timezone:sqlstring})
            AS until
),
spent AS (
    SELECT coalesce(teams.name, team_id) AS team, sum(cost / 1e12) AS cost_usd
    FROM usage_15m
    CROSS JOIN month
    LEFT JOIN teams ON teams.id = team_id
    WHERE bucket >= since AND bucket < until
        AND ('*' IN (${team:sqlstring}) OR coalesce(teams.name, team_id) IN (${team:sqlstring}))
        AND ('*' IN (${model:sqlstring}) OR model IN (${model:sqlstring}))
    GROUP BY 1
)
SELECT
    team AS "Team",
    cost_usd AS "Spent this month",
    cost_usd * extract(epoch FROM until - since) / nullif(extract(epoch FROM now() - since), 0) AS "Projected",
    until AS "Month ends"
FROM spent
CROSS JOIN month
ORDER BY "Projected" DESC
