-- How budgets stand in their windows of now. What nobody has used yet has no window.
WITH standing AS (
    SELECT
        budgets.*,
        budget_windows.start,
        budget_windows."end",
        coalesce(spent, 0) AS spent,
        coalesce(reserved, 0) AS reserved,
        CASE measure WHEN 'cost' THEN 1e12 ELSE 1 END AS unit,
        extract(epoch FROM now() - start) / extract(epoch FROM "end" - start) AS passed
    FROM budgets
    LEFT JOIN budget_windows ON budget_windows.budget_id = budgets.id
        AND start <= now() AND coalesce("end" > now(), true)
)
SELECT
    CASE owner_kind
        WHEN 'org' THEN 'the organisation'
        WHEN 'team' THEN 'team ' || coalesce(teams.name, owner_id)
        ELSE 'key ' || coalesce(api_keys.name, owner_id)
    END AS "Owner",
    CASE standing.model WHEN '' THEN 'any' ELSE standing.model END AS "Models",
    measure AS "Measure",
    period AS "Period",
    standing.tz AS "Time zone",
    enforcement AS "Enforcement",
    "limit" / unit AS "Limit",
    spent / unit AS "Spent",
    reserved / unit AS "Reserved",
    ("limit" - spent)::numeric / nullif("limit", 0) AS "Left",
    spent / unit / nullif(passed, 0) AS "Projected",
    "end" AS "Window ends"
FROM standing
LEFT JOIN teams ON teams.id = owner_id AND owner_kind = 'team'
LEFT JOIN api_keys ON api_keys.id = owner_id AND owner_kind = 'key'
ORDER BY "Left" NULLS FIRST, "Owner", "Measure", "Period"
