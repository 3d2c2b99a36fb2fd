WITH {{usage}}
SELECT coalesce(sum(unpriced_requests), 0) AS "Unpriced requests"
FROM usage
