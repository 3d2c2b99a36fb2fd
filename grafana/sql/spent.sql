WITH {{usage}}
SELECT coalesce(sum(cost_usd), 0) AS "Spent"
FROM usage
