@echo -off
# Firmware that has forgotten the disk's boot entry may put its shell first.
# The loader knows its own disk, so the first ESP with it will do.
for %d in fs0 fs1 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9
  if exist %d:\EFI\bascule then
    %d:\EFI\BOOT\BOOTX64.EFI
  endif
endfor
