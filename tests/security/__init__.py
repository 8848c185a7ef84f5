"""Security, attacked: `test_attack_*` tries the wrong way; `test_attacks_index` says which test attempts which attack."""
