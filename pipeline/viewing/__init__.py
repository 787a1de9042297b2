"""Rows and where they come from and lead to, for people: what `stillhouse lineage` and `stillhouse view` show."""
