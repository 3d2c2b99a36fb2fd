WITH {{usage}}
SELECT
    team AS "Team",
    sum(cost_usd) AS "Cost",
    sum(cost_usd) / nullif(sum(sum(cost_usd)) OVER (), 0) AS "Share",
    sum(requests) AS "Requests",
    sum(errors) AS "Errors",
    sum(prompt_tokens) AS "Prompt",
    sum(cached_tokens) AS "Cached",
    sum(completion_tokens) AS "Completion",
    sum(unpriced_requests) AS "Unpriced",
    sum(estimated_tokens) / nullif(sum(prompt_tokens + completion_tokens), 0) AS "Estimated"
FROM usage
GROUP BY team
ORDER BY "Cost" DESC, "Requests" DESC
LIMIT 1000
