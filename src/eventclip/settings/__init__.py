"""What users type: which settings there are, what they may be, and how a mistake is told. No torch in here."""
