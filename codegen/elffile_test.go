package codegen

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"strings"
	"testing"
)

// hostileELF returns a small ELF file of many symbols and sections, all with one long
// name.
func hostileELF(t *testing.T, flags elf.SectionFlag) []byte {
	const count, length = 2000, 50_000
	strtab := "\x00" + strings.Repeat("A", length) + "\x00"
	symbols := make([]elf.Sym64, count)
	for i := 1; i < count; i++ {
		symbols[i] = elf.Sym64{Name: 1, Info: 1, Shndx: 1, Value: uint64(i)}
	}
	names := uint64(64 + count*elf.Sym64Size)
	sections := make([]elf.Section64, count)
	for i := range sections {
		sections[i] = elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: 1}
	}
	sections[0] = elf.Section64{}
	sections[1] = elf.Section64{Type: uint32(elf.SHT_SYMTAB), Flags: uint64(flags), Off: 64, Size: count * elf.Sym64Size, Link: 2, Entsize: elf.Sym64Size}
	sections[2] = elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: names, Size: uint64(len(strtab))}
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: names + uint64(len(strtab)), Ehsize: 64, Shentsize: 64, Shnum: count, Shstrndx: 2,
	}
	var b bytes.Buffer
	for _, part := range []any{header, symbols, []byte(strtab), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestHostileELF checks that the memory for reading a file is proportional to its size,
// although names may overlap and sections may be compressed.
func TestHostileELF(t *testing.T) {
	for _, c := range []struct {
		flags elf.SectionFlag
		want  string
	}{{0, "no symbol of the head of a list of streamtypes, such as _ss_static_policy_entry"}, {elf.SHF_COMPRESSED, "compressed"}} {
		file := hostileELF(t, c.flags)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ReadELF(file, ELFOptions{})
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 20*uint64(len(file)) {
			t.Errorf("flags %v: %d bytes for a file of %d bytes", c.flags, n, len(file))
		}
	}
}

// TestHostileRelocation checks a relocation section whose section number exceeds 31 bits,
// which is negative as a 32-bit int.
func TestHostileRelocation(t *testing.T) {
	file := hostileELF(t, 0)
	binary.LittleEndian.PutUint16(file[16:], uint16(elf.ET_REL))
	section := file[binary.LittleEndian.Uint64(file[40:])+3*64:]
	binary.LittleEndian.PutUint32(section[4:], uint32(elf.SHT_RELA))
	binary.LittleEndian.PutUint32(section[44:], 1<<31)
	if _, err := ReadELF(file, ELFOptions{}); err == nil {
		t.Error("no error")
	}
}
