"""The spend page: what people look at in a browser. It shows what the API tells, and changes nothing."""
