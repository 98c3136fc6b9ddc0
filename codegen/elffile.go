package codegen

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
)

// openELF reads the headers of an ELF file, without the names of sections:
// debug/elf copies each name, and thousands of sections may share one long name.
func openELF(file []byte) (*elf.File, error) {
	file = bytes.Clone(file)
	index := 50 // e_shstrndx
	if len(file) > elf.EI_CLASS && elf.Class(file[elf.EI_CLASS]) == elf.ELFCLASS64 {
		index = 62
	}
	if len(file) >= index+2 {
		clear(file[index : index+2])
	}
	return elf.NewFile(bytes.NewReader(file))
}

// cut returns a part of a file.
func cut(file []byte, offset, size uint64) ([]byte, error) {
	if offset > uint64(len(file)) || size > uint64(len(file))-offset {
		return nil, errors.New("the ELF file is cut off")
	}
	return file[offset : offset+size], nil
}

// maxName is the maximum length of symbol names; longer ones are truncated. Those of a
// policy are shorter.
const maxName = 4096

// readSymbols returns the symbols in the section of a type, without the first, which is
// always empty. The names share memory, unlike those of debug/elf, since thousands of
// symbols may share one long name. Compressed sections are not decompressed for the same
// reason.
func readSymbols(f *elf.File, file []byte, typ elf.SectionType) ([]elf.Symbol, error) {
	s := f.SectionByType(typ)
	if s == nil || s.FileSize == 0 {
		return nil, nil
	}
	if s.Link == 0 || uint64(s.Link) >= uint64(len(f.Sections)) {
		return nil, errors.New("they have no string table")
	}
	strtab := f.Sections[s.Link]
	if (s.Flags|strtab.Flags)&elf.SHF_COMPRESSED != 0 {
		return nil, errors.New("they are compressed")
	}
	data, err := cut(file, s.Offset, s.FileSize)
	if err != nil {
		return nil, err
	}
	text, err := cut(file, strtab.Offset, strtab.FileSize)
	if err != nil {
		return nil, err
	}
	size := elf.Sym32Size
	if f.Class == elf.ELFCLASS64 {
		size = elf.Sym64Size
	}
	if len(data)%size != 0 {
		return nil, errors.New("the last one is cut off")
	}
	names := string(text)
	list := make([]elf.Symbol, 0, len(data)/size-1)
	for data = data[size:]; len(data) > 0; data = data[size:] {
		var x elf.Sym64
		if size == elf.Sym64Size {
			_, err = binary.Decode(data, f.ByteOrder, &x)
		} else {
			var y elf.Sym32
			_, err = binary.Decode(data, f.ByteOrder, &y)
			x = elf.Sym64{Name: y.Name, Info: y.Info, Other: y.Other, Shndx: y.Shndx, Value: uint64(y.Value), Size: uint64(y.Size)}
		}
		if err != nil {
			return nil, err
		}
		start := min(uint64(x.Name), uint64(len(names)))
		name, _, _ := strings.Cut(names[start:min(start+maxName, uint64(len(names)))], "\x00")
		list = append(list, elf.Symbol{Name: name, Info: x.Info, Other: x.Other, Section: elf.SectionIndex(x.Shndx), Value: x.Value, Size: x.Size})
	}
	return list, nil
}
