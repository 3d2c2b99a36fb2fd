WITH {{usage}}
SELECT coalesce(sum(requests), 0) AS "Requests"
FROM usage
