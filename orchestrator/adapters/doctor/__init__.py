"""The looks of ``wave doctor``, each a function that yields findings and changes nothing."""
